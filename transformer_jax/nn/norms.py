"""Normalisation of features, its statistics in float32 whatever the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax import types
from transformer_jax.nn import brief, lean

GROUPS = 32
"""Into how many groups `GroupNorm` divides the channels, as every published model does."""


class LayerNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias` (Ba et al., 1607.06450)."""

    def __init__(
        self,
        width: int,
        *,
        epsilon: float = 1e-6,
        use_bias: bool = True,
        axis: str = "embed",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.epsilon, self.dtype = epsilon, dtype
        self.scale = nnx.Param(jnp.ones((width,), param_dtype), axes=(axis,))
        self.bias = nnx.Param(jnp.zeros((width,), param_dtype), axes=(axis,)) if use_bias else None

    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        scale, bias = (None if p is None else p[...].astype(jnp.float32) for p in (self.scale, self.bias))
        if brief.wanted():
            return brief.layer_norm(self.epsilon, self.dtype, x, scale, bias)
        x = x.astype(jnp.float32)
        if lean.wanted():
            return lean.layer_norm(self.epsilon, x, scale, bias).astype(self.dtype)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        return _affine(centred * inverse, self.scale, self.bias).astype(self.dtype)


class RMSNorm(nnx.Module):
    """`x / sqrt(mean(x^2) + epsilon) * scale` (Zhang and Sennrich, 1910.07467)."""

    def __init__(
        self,
        width: int,
        *,
        epsilon: float = 1e-6,
        axis: str = "embed",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.epsilon, self.dtype = epsilon, dtype
        self.scale = nnx.Param(jnp.ones((width,), param_dtype), axes=(axis,))

    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        x = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return _affine(x * inverse, self.scale, None).astype(self.dtype)


class GroupNorm(nnx.Module):
    """`LayerNorm` over groups of channels and all positions of an example, `scale` and `bias` a channel (1803.08494).

    `scale` is what the scale starts at. Raises `InputError` when the groups do not divide the channels.
    """

    def __init__(
        self,
        width: int,
        *,
        groups: int = GROUPS,
        epsilon: float = 1e-6,
        scale: float = 1.0,
        axis: str = "embed",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if width % groups:
            raise types.InputError(
                f"The groups must divide the channels: {width} channels and {groups} groups leave {width % groups}."
                f" Take {width // groups * groups or groups} channels, or other groups."
            )
        self.groups, self.epsilon, self.dtype = groups, epsilon, dtype
        self.scale = nnx.Param(jnp.full((width,), scale, param_dtype), axes=(axis,))
        self.bias = nnx.Param(jnp.zeros((width,), param_dtype), axes=(axis,))

    def __call__(self, x: Float[Array, "batch *positions features"]) -> Float[Array, "batch *positions features"]:
        shape, scale = x.shape, self.scale[...].astype(jnp.float32)
        x = x.astype(jnp.float32).reshape(shape[0], -1, shape[-1])
        centred = x - self._mean(x)
        inverse = jax.lax.rsqrt(self._mean(jnp.square(centred)) + self.epsilon)
        x = centred * (inverse * scale.reshape(1, 1, -1)) + self.bias[...].astype(jnp.float32).reshape(1, 1, -1)
        return x.reshape(shape).astype(self.dtype)

    def _mean(self, x: jax.Array) -> jax.Array:
        """The mean of every group, for each of its channels: [batch, 1, channels]."""
        channels = jnp.mean(x, axis=1).reshape(x.shape[0], self.groups, -1)  # first the positions: channels stay minor
        return jnp.repeat(jnp.mean(channels, axis=-1), channels.shape[-1], axis=-1)[:, None]


def _affine(x: jax.Array, scale: nnx.Param, bias: nnx.Param | None) -> jax.Array:
    shape = (1,) * (x.ndim - 1) + scale.shape
    x = x * scale[...].astype(jnp.float32).reshape(shape)
    return x if bias is None else x + bias[...].astype(jnp.float32).reshape(shape)


NORMS = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
