"""From the tokens of an image to one vector."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from transformer_jax.nn import attention, embeddings, linear, mlp, norms


class Token(nnx.Module):
    """The class token (2010.11929), which stands first, or the mean of the `count` first tokens (DeiT, 2012.12877)."""

    def __init__(self, *, count: int = 1):
        self.count = count

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch embed"]:
        return x[:, 0] if self.count == 1 else _mean(x[:, : self.count])

    def weights(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch pools length"]:
        """How much of each token goes into the vector: one row, which sums to 1."""
        return _even(x, jnp.arange(x.shape[1]) < self.count)


class Mean(nnx.Module):
    """The mean of the patches (2205.01580), without the `prefix` tokens before them."""

    def __init__(self, *, prefix: int):
        self.prefix = prefix

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch embed"]:
        return _mean(x[:, self.prefix :])

    def weights(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch pools length"]:
        """How much of each token goes into the vector: one row, which sums to 1."""
        return _even(x, jnp.arange(x.shape[1]) >= self.prefix)


class AttentionPool(nnx.Module):
    """A learned probe attends to all tokens; an MLP with a residual follows (MAP head of 2106.04560)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        activation: str = "gelu_tanh",
        epsilon: float = 1e-6,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        probe = linear.XAVIER(rngs.params(), (1, width), param_dtype)[0]
        self.probe = nnx.Param(probe, axes=("embed",))
        self.attention = attention.MultiHeadAttention(width, heads, **shared)
        self.norm = norms.LayerNorm(width, epsilon=epsilon, **shared)
        self.mlp = mlp.MLP(width, hidden, activation=activation, **shared)

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch embed"]:
        probe = embeddings.repeat(self.probe[...][None], x)
        pooled = self.attention(probe, x)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]

    def weights(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch pools length"]:
        """How much of each token every head of the probe takes: a row a head, each sums to 1."""
        return self.attention.weights(embeddings.repeat(self.probe[...][None], x), x)[:, :, 0]


def _mean(x: Float[Array, "batch length embed"]) -> Float[Array, "batch embed"]:
    return jnp.mean(x, axis=1, dtype=jnp.float32).astype(x.dtype)


def _even(x: Float[Array, "batch length embed"], taken: Bool[Array, " length"]) -> Float[Array, "batch 1 length"]:
    return jnp.broadcast_to(taken / jnp.sum(taken), (x.shape[0], 1, x.shape[1]))


POOLS = ("tok", "gap", "map")
