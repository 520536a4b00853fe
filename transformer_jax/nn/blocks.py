"""Residual blocks of one attention and one MLP: where the norms stand is which class it is.

A block takes its attention and MLP ready made, and a factory for its norms. Every branch passes an optional layer
scale, then stochastic depth with the rate of its layer.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from transformer_jax import axes
from transformer_jax.nn import dropout as dropouts

Tokens = Float[Array, "batch length embed"]


class LayerScale(nnx.Module):
    """A learned factor per feature, small at the start (Touvron et al., 2103.17239)."""

    def __init__(
        self,
        width: int,
        *,
        initial: float = 1e-5,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.full((width,), initial, param_dtype), axes=("embed",))

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        return x * self.scale[...].astype(self.dtype)[None, None]


class _Block(nnx.Module):
    """What the three blocks share: their parts, and the way of a branch back into the stream."""

    def __init__(
        self,
        attention: nnx.Module,
        mlp: nnx.Module,
        *,
        norm: Callable[..., nnx.Module],
        scale: Callable[..., nnx.Module] | None = None,
        rngs: nnx.Rngs,
    ):
        self.attention: Any = attention
        self.mlp = mlp
        self._make_norms(norm, rngs)
        self.scale1 = scale(rngs=rngs) if scale else None
        self.scale2 = scale(rngs=rngs) if scale else None
        self.depth1 = dropouts.StochasticDepth(rngs=rngs)
        self.depth2 = dropouts.StochasticDepth(rngs=rngs)

    def _make_norms(self, norm: Callable[..., nnx.Module], rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = norm(rngs=rngs), norm(rngs=rngs)

    def attention_weights(
        self, x: Tokens, *, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "batch heads length memory"]:
        """How much each head of this block's attention takes of every token, for the block's input `x`."""
        return self.attention.weights(self.norm1(x), mask=mask)

    def _attended(self, x: Tokens, mask: Any, drop_rate: Any) -> Tokens:
        x = self.attention(x, mask=mask)
        return self.depth1(x if self.scale1 is None else self.scale1(x), drop_rate)

    def _transformed(self, x: Tokens, drop_rate: Any) -> Tokens:
        x = self.mlp(x)
        return self.depth2(x if self.scale2 is None else self.scale2(x), drop_rate)


class PreNorm(_Block):
    """`x += attention(norm1(x)); x += mlp(norm2(x))`: the ViT."""

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        mask: Bool[Array, "..."] | None = None,
        drop_rate: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "batch length embed"]:
        x = axes.constrain(x + self._attended(self.norm1(x), mask, drop_rate), "batch", "length", "embed")
        return axes.constrain(x + self._transformed(self.norm2(x), drop_rate), "batch", "length", "embed")


class PostNorm(_Block):
    """`x = norm1(x + attention(x)); x = norm2(x + mlp(x))`: the Transformer of 1706.03762."""

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        mask: Bool[Array, "..."] | None = None,
        drop_rate: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "batch length embed"]:
        x = axes.constrain(self.norm1(x + self._attended(x, mask, drop_rate)), "batch", "length", "embed")
        return axes.constrain(self.norm2(x + self._transformed(x, drop_rate)), "batch", "length", "embed")

    def attention_weights(
        self, x: Tokens, *, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "batch heads length memory"]:
        """As in the other blocks; no norm stands before this one's attention."""
        return self.attention.weights(x, mask=mask)


class Parallel(_Block):
    """`x += attention(norm1(x)) + mlp(norm1(x))`, one norm for both: ViT-22B (2302.05442, section 2)."""

    def _make_norms(self, norm: Callable[..., nnx.Module], rngs: nnx.Rngs) -> None:
        self.norm1 = norm(rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        mask: Bool[Array, "..."] | None = None,
        drop_rate: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "batch length embed"]:
        normed = self.norm1(x)
        x = x + self._attended(normed, mask, drop_rate) + self._transformed(normed, drop_rate)
        return axes.constrain(x, "batch", "length", "embed")


BLOCKS = {"pre": PreNorm, "post": PostNorm, "parallel": Parallel}
