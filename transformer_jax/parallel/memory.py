"""Which memory of a device arrays lie in: its own, or that of its host, where they wait until a step wants them."""

from typing import Any

import jax

from transformer_jax import types

HOST = "pinned_host"


def on_host(shardings: Any) -> Any:
    """The same shardings in the memory of the host.

    Raises `InputError` where the devices cannot reach it.
    """
    for where in jax.tree.leaves(shardings)[:1]:
        device = next(iter(where.device_set))
        kinds = [memory.kind for memory in device.addressable_memories()]
        if HOST not in kinds:
            raise types.InputError(
                f"parallel.offload needs a device that reaches {HOST} memory: {device.device_kind} has"
                f" {', '.join(kinds)}. Set parallel.offload='none'; optimizer_state='data' and fsdp save memory too."
            )
    return jax.tree.map(lambda where: where.with_memory_kind(HOST), shardings)
