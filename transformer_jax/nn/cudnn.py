"""cuDNN's fused attention, through JAX. UNVERIFIED on a GPU: its padding is tested on CPU, with XLA in its place."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from transformer_jax.nn import masks


@functools.cache
def library_loads() -> bool:
    """Whether JAX finds cuDNN: lowering its smallest attention says so without compiling anything."""
    example = jax.ShapeDtypeStruct((1, 64, 1, 64), jnp.bfloat16)
    probe = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    try:
        jax.jit(probe).lower(example, example, example)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    segments: masks.Segments | None = None,
    last: jax.Array | None = None,
    square: bool = False,
    differentiated: bool = True,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """`kernels.attend` of one device; `square` is the plain causal mask, of which it needs no array.

    Differentiated, it refuses odd lengths: they are padded by a token that the lengths it is told leave out.
    """
    length, memory = query.shape[1], key.shape[1]
    kept = masks.allowed(mask, segments, None if square else last, memory)
    kept = None if kept is None else jnp.broadcast_to(kept, (*kept.shape[:2], length, memory))
    told: dict[str, Any] = {}
    if differentiated and (length % 2 or memory % 2):
        more, further = (0, length % 2), (0, memory % 2)
        query = jnp.pad(query, ((0, 0), more, (0, 0), (0, 0)))
        key, value = (jnp.pad(x, ((0, 0), further, (0, 0), (0, 0))) for x in (key, value))
        kept = None if kept is None else jnp.pad(kept, ((0, 0), (0, 0), more, further))
        sizes = (("query_seq_lengths", length), ("key_value_seq_lengths", memory))
        told = {name: jnp.full(query.shape[:1], size, jnp.int32) for name, size in sizes}
    out = jax.nn.dot_product_attention(
        query, key, value, mask=kept, is_causal=square, implementation=implementation, **told
    )
    return out[:, :length]
