"""Which memory of a device arrays lie in: its own, or that of its host, where they wait until a step wants them."""

from typing import Any

import jax
import numpy as np

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


def fetched(array: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array in numpy. Where it is spread over processes all of them must ask, and each is given all of it."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(jax.device_get(array))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def placed(array: np.ndarray | np.generic, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has whole as one on the devices of all: each gives its devices their parts."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    with jax.transfer_guard("allow"):  # on purpose, as `device_put` is: that would compare the array between processes
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])
