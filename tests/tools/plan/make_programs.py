"""Writes programs/*.txt: small programs as the compilers leave them, without what the tests do not read.

    ALLOW_MULTIPLE_LIBTPU_LOAD=1 JAX_PLATFORMS=cpu python -m tests.tools.plan.make_programs    (needs the extra `plan`)
    JAX_PLATFORMS=cpu python -m tests.tools.plan.make_programs gpu    (needs the extra `cuda`)

The texts here are of jax 0.12.0.1, with libtpu 0.0.50.1 or jax-cuda13-plugin 0.12.0.1.
"""

import re
import sys
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


def gpu_program():
    """The text of a step on eight H100s that gathers two weights, scatters their gradients and reduces a third's."""
    mesh = Mesh(np.array(topology.describe("h100:8").devices), ("fsdp",), axis_types=(AxisType.Auto,))

    def step(weights, x):
        def loss(weights):
            hidden = jnp.tanh(jnp.tanh(x @ weights["first"]) @ weights["up"])
            return jnp.mean(jnp.square((x + hidden @ weights["down"]).astype(jnp.float32)))

        return jax.tree.map(lambda weight, gradient: weight - gradient, weights, jax.grad(loss)(weights))

    cut, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    lie = dict(first=whole, up=cut, down=cut)
    shapes = dict(first=(WIDTH, WIDTH), up=(WIDTH, 2 * WIDTH), down=(2 * WIDTH, WIDTH))
    weights = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in shapes.items()}
    jitted = jax.jit(step, in_shardings=(lie, cut), out_shardings=lie)
    return jitted.lower(weights, jax.ShapeDtypeStruct((4096, WIDTH), jnp.bfloat16)).compile().as_text()


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
    if "gpu" in sys.argv:
        (FOLDER / "gpu.txt").write_text(trimmed(gpu_program()))
    else:
        for name, how in PROGRAMS.items():
            (FOLDER / f"{name}.txt").write_text(trimmed(program(*how)))
