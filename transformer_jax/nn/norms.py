"""Normalisation over the last axis, its statistics in float32 whatever the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax.nn import lean


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
        x = x.astype(jnp.float32)
        if lean.wanted():
            scale, bias = (None if p is None else p[...].astype(jnp.float32) for p in (self.scale, self.bias))
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


def _affine(x: jax.Array, scale: nnx.Param, bias: nnx.Param | None) -> jax.Array:
    shape = (1,) * (x.ndim - 1) + scale.shape
    x = x * scale[...].astype(jnp.float32).reshape(shape)
    return x if bias is None else x + bias[...].astype(jnp.float32).reshape(shape)


NORMS = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
