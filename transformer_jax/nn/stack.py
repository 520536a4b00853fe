"""Equal blocks one after the other: one module whose parameters carry a leading `layers` axis.

Scanned (compiled once, whatever the depth) or unrolled, rematerialised or not, a stack computes the
same outputs and gradients from the same parameters and random streams.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from transformer_jax import paths
from transformer_jax.nn import brief

REMAT: dict[str, Callable[..., Any] | None] = {
    "full": None,  # saves the input of every block only
    "dots": jax.checkpoint_policies.checkpoint_dots,
    "dots_no_batch": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,  # dense layers, not attention
}
_METADATA = {nnx.PARTITION_NAME: None, "axes": "layers"}


def make(block: Callable[[nnx.Rngs], nnx.Module], count: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """`count` modules `block(rngs)`, differently initialised, as one with stacked parameters and random streams."""
    # a scan, not a vmap: random numbers from many keys at once take three times as long to compile
    stacked = nnx.scan(block, in_axes=0, out_axes=0, transform_metadata=_METADATA)
    module: Any = nnx.split_rngs(splits=count)(stacked)(rngs)
    module.layers = count
    return module


def depth(module: Any) -> int:
    """How many layers `make` stacked in this module; 0 when it is not a stack."""
    return getattr(module, "layers", 0)


def run(
    blocks: nnx.Module,
    x: Float[Array, "batch length embed"],
    *,
    stochastic_depth: float = 0.0,
    scan: bool = True,
    remat: str | None = None,
    **shared: Any,
) -> Float[Array, "batch length embed"]:
    """`x` through all blocks of `make`, in order; `shared` keywords (`mask=`) go to each of them.

    `stochastic_depth` is the drop rate of the last block; it grows linearly from 0 at the first. `remat` names what the
    backward pass may find saved (`REMAT`); `None` saves everything.
    """
    return _through(blocks, x, lambda block, x: None, stochastic_depth, scan, remat, shared)[0]


def read(
    blocks: nnx.Module,
    x: Float[Array, "batch length embed"],
    look: Callable[[Any, jax.Array], Any],
    *,
    scan: bool = True,
    **shared: Any,
) -> Any:
    """What `look(block, x)` makes of every block and its input, along a new first axis, as `x` runs through them."""
    return _through(blocks, x, look, 0.0, scan, None, shared)[1]


def _through(
    blocks: nnx.Module,
    x: jax.Array,
    look: Callable[[Any, jax.Array], Any],
    stochastic_depth: float,
    scan: bool,
    remat: str | None,
    shared: dict[str, Any],
) -> tuple[jax.Array, Any]:
    if remat is not None:
        paths.one_of("remat", remat, REMAT)
    count = depth(blocks)
    graph, params, rest = nnx.split(blocks, nnx.Param, ...)

    def step(x, layer):
        params, rest, rate = layer
        block = nnx.merge(graph, params, rest)
        seen = look(block, x)
        x = block(x, drop_rate=0.0 if rate is None else rate, **shared)
        return x, (nnx.state(block, nnx.Not(nnx.Param)), seen)

    # in a scan the compiler cannot merge the two forward passes, so it need not be kept from it
    kept = jax.checkpoint(step, policy=REMAT[remat], prevent_cse=not scan) if remat else step
    layers = (params, rest, drop_rates(stochastic_depth, count))
    with brief.repeated(remat is not None):
        x, (rest, seen) = jax.lax.scan(kept, x, layers) if scan else _unrolled(kept, x, layers, count)
    nnx.update(blocks, rest)
    return x, seen


def drop_rates(last: float, count: int) -> Float[np.ndarray, " layers"] | None:
    """From 0 at the first layer to `last` at the last (1603.09382, section 3); `None` when nothing is dropped."""
    return np.linspace(0.0, last, count, dtype=np.float32) if last else None


def unstack(tree: Any, count: int) -> list[Any]:
    """A tree of stacked leaves as one tree a layer.

    One `split` instead of many slices: its gradient concatenates the layers once, where that of a slice is the whole
    array filled up with zeros, for every layer again.
    """
    leaves, structure = jax.tree.flatten(tree)
    parts = [[part.reshape(part.shape[1:]) for part in jax.lax.split(leaf, (1,) * count)] for leaf in leaves]
    return [structure.unflatten([part[i] for part in parts]) for i in range(count)]


def _unrolled(step: Callable[..., Any], x: Any, layers: Any, count: int) -> tuple[Any, Any]:
    """`jax.lax.scan(step, x, layers)` as a Python loop."""
    outputs = []
    for layer in unstack(jax.tree.map(jnp.asarray, layers), count):
        x, output = step(x, layer)
        outputs.append(output)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
