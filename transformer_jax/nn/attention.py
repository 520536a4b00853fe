"""Multi-head attention (Vaswani et al., 1706.03762, section 3.2), self or cross, with grouped queries."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from transformer_jax import axes, paths, types
from transformer_jax.nn import dropout as dropouts
from transformer_jax.nn import kernels, linear, masks, norms, plain


class MultiHeadAttention(nnx.Module):
    """Every query head looks up a mixture of values in `memory` (the tokens themselves when it is not given).

    `kv_heads` below `heads` shares each key and value head among a group of query heads (2305.13245); `qk_norm`
    normalises queries and keys (ViT-22B, 2302.05442), with a bias where `qk_norm_bias` says so (timm). Dropout follows
    the output projection only.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        memory_width: int | None = None,
        out_width: int | None = None,
        use_bias: bool = True,
        qk_norm: bool = False,
        qk_norm_bias: bool = False,
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        backend: str = "auto",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        head_dim, kv_heads = head_sizes(width, heads, kv_heads, head_dim)
        value_dim, memory_width = value_dim or head_dim, memory_width or width
        shared: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        some: dict[str, Any] = dict(use_bias=use_bias, kernel_init=linear.XAVIER, **shared)
        value_axis = "head_dim" if value_dim == head_dim else "value_dim"
        kv_axis = "heads" if kv_heads == heads else "kv_heads"
        self.backend = paths.one_of("The attention back end", backend, kernels.BACKENDS)
        self.query = linear.Dense((width,), (heads, head_dim), axes=("embed", "heads", "head_dim"), **some)
        self.key = linear.Dense((memory_width,), (kv_heads, head_dim), axes=("embed", kv_axis, "head_dim"), **some)
        self.value = linear.Dense((memory_width,), (kv_heads, value_dim), axes=("embed", kv_axis, value_axis), **some)
        self.out = linear.Dense((heads, value_dim), (out_width or width,), axes=("heads", value_axis, "embed"), **some)
        norm: dict[str, Any] = dict(epsilon=epsilon, use_bias=qk_norm_bias, axis="head_dim", **shared)
        self.query_norm = norms.LayerNorm(head_dim, **norm) if qk_norm else None
        self.key_norm = norms.LayerNorm(head_dim, **norm) if qk_norm else None
        self.dropout = dropouts.Dropout(dropout, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        memory: Float[Array, "batch memory memory_embed"] | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "batch length out_embed"]:
        query, key = self._query_and_key(x, memory)
        value = self.value(x if memory is None else memory)
        trained = not self.dropout.deterministic
        mixed = kernels.attend(query, key, value, mask=mask, backend=self.backend, differentiated=trained)
        mixed = axes.constrain(mixed, "batch", "length", "heads", "value_dim")
        return self.dropout(self.out(mixed))

    def weights(
        self,
        x: Float[Array, "batch length embed"],
        memory: Float[Array, "batch memory memory_embed"] | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "batch heads length memory_length"]:
        """How much every head takes of each value: rows of float32 that sum to 1, whatever the back end."""
        return plain.weights(*self._query_and_key(x, memory), None if mask is None else masks.expand(mask))

    def _query_and_key(self, x: jax.Array, memory: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        query, key = self.query(x), self.key(x if memory is None else memory)
        query = query if self.query_norm is None else self.query_norm(query)
        key = key if self.key_norm is None else self.key_norm(key)
        return axes.constrain(query, "batch", "length", "heads", "head_dim"), key


def head_sizes(width: int, heads: int, kv_heads: int | None = None, head_dim: int | None = None) -> tuple[int, int]:
    """The size of a head and the number of key heads, checked."""
    kv_heads = kv_heads or heads
    if head_dim is None and width % heads:
        near = [n for n in range(1, width + 1) if width % n == 0]
        best = min(near, key=lambda n: abs(n - heads))
        raise types.InputError(
            f"The number of heads must divide the width: width {width} and {heads} heads leave {width % heads}."
            f" Take {best} heads, or name head_dim."
        )
    if heads % kv_heads:
        raise types.InputError(
            f"The number of key heads must divide the number of heads: {heads} heads and {kv_heads} key heads."
        )
    return head_dim or width // heads, kv_heads
