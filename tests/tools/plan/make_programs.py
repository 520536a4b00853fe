"""Writes programs/*.txt: small programs as the TPU compiler leaves them, without what the tests do not read.

    ALLOW_MULTIPLE_LIBTPU_LOAD=1 JAX_PLATFORMS=cpu python -m tests.tools.plan.make_programs    (needs the extra `plan`)

The texts here are of jax 0.12.0.1 and libtpu 0.0.50.1.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer_jax.tools.plan import topology

FOLDER = Path(__file__).parent / "programs"
LAYERS, WIDTH = 5, 512
# name: topology, mesh, how the weights lie, examples
PROGRAMS = {
    "scanned": ("v3:2x2", {"data": 8}, PartitionSpec(), 64),
    "sharded": ("v5e:4x4", {"data": 2, "fsdp": 8}, PartitionSpec(None, "fsdp"), 256),
    "offloaded": ("7x:2x2x1", {"fsdp": 8}, PartitionSpec(None, "fsdp"), 4096),
    "slices": ("v5e:2x2*2", {"replica": 2, "data": 4}, PartitionSpec(), 64),
}


def step(weights, x):
    """Gradient of a stack of square layers."""

    def loss(weights):
        out, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)
        return jnp.mean(jnp.square(out.astype(jnp.float32)))

    return weights - jax.grad(loss)(weights)


def program(where, shape, weights, examples):
    """The text of `step`, compiled."""
    devices = np.array(topology.describe(where).devices).reshape(tuple(shape.values()))
    mesh = Mesh(devices, tuple(shape), axis_types=(AxisType.Auto,) * len(shape))
    lie, batch = NamedSharding(mesh, weights), NamedSharding(mesh, PartitionSpec(tuple(shape)))
    jitted = jax.jit(step, in_shardings=(lie, batch), out_shardings=lie)
    arguments = (
        jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16),
        jax.ShapeDtypeStruct((examples, WIDTH), jnp.bfloat16),
    )
    return jitted.lower(*arguments).compile().as_text()


def trimmed(text):
    """Without the places in the source and the settings of the compiler, cycles and kinds of transfer kept."""
    text = re.sub(r", (metadata|frontend_attributes)=\{(?![^}]*megascale)[^}]*\}", "", text)
    lines = []
    for line in text.splitlines():
        head, configured, rest = line.partition(", backend_config=")
        cycles = re.search(r'"estimated_cycles":"\d+"', rest)
        lines.append(f"{head}, backend_config={{{cycles[0]}}}" if configured and cycles else head)
    return re.sub(r"\n(FileNames|FunctionNames|FileLocations|StackFrames)\n(\d.*\n)*", "\n", "\n".join(lines)) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, how in PROGRAMS.items():
        (FOLDER / f"{name}.txt").write_text(trimmed(program(*how)))
