"""Compiles attention forward and backward for absent TPUs; prints what it needs (see test_flash_compile.py)."""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from transformer_jax import axes
from transformer_jax.nn import kernels, masks
from transformer_jax.parallel import mesh, rules

BATCH, HEADS = 8, 16


def main() -> None:
    for case in sys.argv[1:]:
        name, length, head_dim, kind, *backends = case.split()
        options = {"chip_config_name": "megacore"} if name.startswith("v4") else {}
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
        preset = "sequence" if kind == "sequence" else "tensor"
        grid = mesh.make({preset: 2, "data": -1}, described.devices, preset=preset)
        sizes = (int(length), int(head_dim), kind)
        found = {backend: measure(grid, preset, backend, *sizes) for backend in backends or ("auto", "xla")}
        print(json.dumps({"case": case, "jax": jax.__version__, **found}), flush=True)


def measure(grid, preset: str, backend: str, length: int, head_dim: int, kind: str) -> dict[str, float]:
    """Per device, in bytes."""
    spec = ("data", "sequence") if preset == "sequence" else ("data", None, "tensor")
    where = NamedSharding(grid, PartitionSpec(*spec))
    token = jax.ShapeDtypeStruct((BATCH, length, HEADS, head_dim), jnp.bfloat16, sharding=where)

    def loss(query, key, value, weights):
        with axes.placed(rules.Placement(grid, preset)):
            mask = masks.padding(jnp.full(BATCH, length - 3), length) if kind == "padding" else None
            out = kernels.attend(query, key, value, mask=mask, causal=kind == "causal", backend=backend)
        return jnp.sum((out * weights).astype(jnp.float32))

    compiled = jax.jit(jax.grad(loss, (0, 1, 2)), out_shardings=where).lower(*[token] * 4).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    return {
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "temporaries": memory.temp_size_in_bytes,
        "peak": memory.peak_memory_in_bytes,
        "gathered": sum(map(size, re.findall(r"= (\S+\[[\d,]+\])\S* all-gather", text))),
    }


def size(shape: str) -> int:
    """Bytes of `bf16[8,16]`."""
    dtype, dims = re.fullmatch(r"\(?(\w+)\[([\d,]+)\]", shape).groups()
    return {"bf16": 2, "f32": 4}[dtype] * math.prod(map(int, dims.split(",")))


if __name__ == "__main__":
    main()
