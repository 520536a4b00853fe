"""Boolean masks: True means keep. Any rank from (length, memory) to (batch, heads, length, memory)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from transformer_jax import types


class Segments(NamedTuple):
    """Which text every token is of, where several lie in one row: 0, 1, 2 ... A query sees tokens of its own number."""

    query: Int[Array, "batch length"]
    memory: Int[Array, "batch memory"]


def causal(length: int, memory: int | None = None) -> Bool[Array, "length memory"]:
    """Token i attends to itself and to what came before; the last token of each side stand at the same place."""
    memory = length if memory is None else memory
    return jnp.tril(jnp.ones((length, memory), bool), k=memory - length)


def padding(lengths: Int[Array, " batch"], memory: int) -> Bool[Array, "batch 1 memory"]:
    """Example b attends to its first `lengths[b]` tokens."""
    return (jnp.arange(memory)[None, :] < lengths[:, None])[:, None, :]


def allowed(
    mask: Bool[Array, "_ _ _ _"] | None,
    segments: Segments | None,
    last: Int[Array, " length"] | None,
    memory: int,
) -> Bool[Array, "_ _ _ _"] | None:
    """What is kept by a mask, by segments and by the `last` token that each query may see: those of the three given."""
    of_segment = None if segments is None else segments.query[:, None, :, None] == segments.memory[:, None, None, :]
    before = None if last is None else last[:, None] >= jnp.arange(memory)[None, :]
    return combine(mask, of_segment, before)


def combine(*masks: Bool[Array, "..."] | None) -> Bool[Array, "..."] | None:
    """What every given mask keeps, as (batch, heads, length, memory); `None` when there is none."""
    kept = None
    for mask in masks:
        if mask is not None:
            kept = expand(mask) if kept is None else jnp.logical_and(kept, expand(mask))
    return kept


def expand(mask: Bool[Array, "..."]) -> Bool[Array, "_ _ _ _"]:
    """A mask of (length, memory), (batch, length, memory) or all four axes, with all four."""
    if mask.ndim == 2:
        return mask[None, None]
    if mask.ndim == 3:
        return mask[:, None]
    if mask.ndim == 4:
        return mask
    raise types.InputError(
        f"A mask has axes (length, memory), (batch, length, memory) or (batch, heads, length, memory):"
        f" its shape is {mask.shape}. Add axes of size 1 where it is the same for all."
    )
