"""Scaled dot-product attention in the operations of XLA: it runs everywhere and takes any mask."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from transformer_jax.nn import brief, lean, masks

PIECE = 1024
"""Queries of one piece where a long sequence is worked through piece by piece."""


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Attention as two batched matrix products in (batch, head, length, memory) layout.

    Grouped queries stand as more rows of their one key head, so keys and values are never repeated.
    """
    if lean.wanted():
        return lean.attention(query * query.shape[-1] ** -0.5, key, value, mask)
    if mask is None and query.shape[2] == key.shape[2] and brief.wanted():
        return brief.attention(query * query.shape[-1] ** -0.5, key, value)
    batch, length, heads, _ = query.shape
    memory, kv_heads, value_dim = key.shape[1], key.shape[2], value.shape[3]
    mixture = weights(query, key, mask).astype(value.dtype)
    mixture = mixture.reshape(batch, kv_heads, heads // kv_heads * length, memory)
    out = jnp.einsum("bgrk,bgkv->bgrv", mixture, value.transpose(0, 2, 1, 3))
    return out.reshape(batch, heads, length, value_dim).transpose(0, 2, 1, 3)


def weights(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory kv_heads head_dim"],
    mask: Bool[Array, "_ _ _ _"] | None = None,
) -> Float[Array, "batch heads length memory"]:
    """How much of every value each query takes, in float32: what `attend` weighs values with."""
    batch, length, heads, head_dim = query.shape
    memory, kv_heads = key.shape[1], key.shape[2]
    query = (query * head_dim**-0.5).transpose(0, 2, 1, 3)
    query = query.reshape(batch, kv_heads, heads // kv_heads * length, head_dim)
    logits = jnp.einsum("bgre,bgke->bgrk", query, key.transpose(0, 2, 1, 3), preferred_element_type=jnp.float32)
    return softmax(logits.reshape(batch, heads, length, memory), mask)


def softmax(
    logits: Float[Array, "batch heads length memory"], mask: Bool[Array, "_ _ _ _"] | None
) -> Float[Array, "batch heads length memory"]:
    """Weights over the memory that the mask keeps; uniform where it keeps nothing (no `-inf`, so no NaN)."""
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    return jax.nn.softmax(logits, axis=-1)


def in_pieces(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    segments: masks.Segments | None = None,
    last: jax.Array | None = None,
) -> jax.Array:
    """`attend` on one device, a piece of the queries after the other; the backward pass works its weights out again."""
    length, memory = query.shape[1], key.shape[1]
    count = -(-length // PIECE)

    @jax.checkpoint
    def piece(x: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        return attend(x[0], key, value, x[1])

    kept = masks.allowed(mask, segments, last, memory)
    if count == 1:
        return piece((query, kept))

    def cut(x: jax.Array, axis: int) -> jax.Array:
        size = -(-length // count)
        filled = jnp.pad(x, [(0, (size * count - length) * (i == axis)) for i in range(x.ndim)])
        return jnp.moveaxis(filled.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)

    if kept is not None:
        kept = cut(jnp.broadcast_to(kept, (*kept.shape[:2], length, memory)), 2)
    out = jax.lax.map(piece, (cut(query, 1), kept))
    return jnp.moveaxis(out, 0, 1).reshape(query.shape[0], -1, *out.shape[3:])[:, :length]
