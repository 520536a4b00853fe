"""What TPUs run instead of the plain layers: the same numbers, with fewer passes over large arrays.

XLA fuses a formula well, but not its derivative: the gradient of a mean and then a variance is one pass after the
other, that of a softmax reads its float32 weights again and again, and that of an activation keeps an array for each of
its steps, which a scan then stacks. Here a backward pass takes its sums side by side, in the product they follow; the
weights of attention are worked out again in the compute dtype, not yet divided by their sum; an activation keeps its
slope. tools/plan/benchmarks.md has what the compiler makes of it.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax import axes

_repeated: contextvars.ContextVar[bool] = contextvars.ContextVar("transformer_jax.nn.brief.repeated", default=False)


def wanted() -> bool:
    """Whether the layers take these formulations: on TPUs, where they were compiled and compared."""
    return axes.hardware().platform == "tpu"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def layer_norm(
    epsilon: float,
    dtype: DTypeLike,
    x: Float[Array, "*rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"] | None,
) -> Float[Array, "*rows features"]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias` over the last axis, worked out in float32.

    The variance of half-precision `x` is `mean(x^2) - mean^2`, one pass: its error is
    below that of the rounding of such numbers, however far the mean is from zero.
    """
    return _layer_norm_forward(epsilon, dtype, x, scale, bias)[0]


def _layer_norm_forward(epsilon, dtype, x, scale, bias):
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    if x.dtype == jnp.float32:
        variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    else:
        variance = jnp.maximum(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (wide - mean) * inverse * _like(scale, x)
    y = y if bias is None else y + _like(bias, x)
    return y.astype(dtype), (x, mean, inverse, scale, bias is None)


def _layer_norm_backward(epsilon, dtype, kept, grad):
    x, mean, inverse, scale, unbiased = kept
    normal, rows = (x.astype(jnp.float32) - mean) * inverse, tuple(range(x.ndim - 1))
    grad = grad.astype(jnp.float32)
    inner = grad * _like(scale, x)
    shift, tilt = (jnp.mean(part, axis=-1, keepdims=True) for part in (inner, inner * normal))
    bias_grad = None if unbiased else jnp.sum(grad, axis=rows)
    x_grad = (inner - shift - normal * tilt) * inverse
    return x_grad.astype(x.dtype), jnp.sum(grad * normal, axis=rows), bias_grad


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activation(function: Callable[..., Array], *parts: Float[Array, "..."]) -> Float[Array, "..."]:
    """`function(*parts)`, element by element; only its derivatives are kept for the backward pass."""
    wide = (part.astype(jnp.float32) for part in parts)
    return function(*wide).astype(parts[0].dtype)


def _activation_forward(function, *parts):
    wide = tuple(part.astype(jnp.float32) for part in parts)
    y, pull = jax.vjp(function, *wide)
    slopes = tuple(slope.astype(part.dtype) for slope, part in zip(pull(jnp.ones_like(y)), parts, strict=True))
    return y.astype(parts[0].dtype), slopes


def _activation_backward(function, slopes, grad):
    return tuple(grad * slope for slope in slopes)


activation.defvjp(_activation_forward, _activation_backward)


@contextlib.contextmanager
def repeated(whether: bool) -> Generator[None]:
    """Within this context layers are built whose forward pass is worked out again just before their backward pass."""
    token = _repeated.set(whether)
    try:
        yield
    finally:
        _repeated.reset(token)


def attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory heads head_dim"],
    value: Float[Array, "batch memory heads value_dim"],
) -> Float[Array, "batch length heads value_dim"]:
    """`softmax(query key^T) value`, logits and sums in float32; the division by the sum comes after the product.

    The weights are kept for the backward pass only where they need not be kept for long (`repeated`).
    """
    return _attention(_repeated.get(), query, key, value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(keep, query, key, value):
    return _attention_forward(keep, query, key, value)[0]


def _attention_forward(keep, query, key, value):
    logits = _product("bqhe,bkhe->bhqk", query, key)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # an array of its own: else each reader has it in a layout of its own, and copies
    weights, total = jax.lax.optimization_barrier((weights.astype(value.dtype), total))
    out = _product("bhqk,bkhv->bhqv", weights, value) / total
    out = out.astype(value.dtype).transpose(0, 2, 1, 3)
    return out, (query, key, value, weights if keep else None, top, total, out)


def _attention_backward(keep, kept, grad):
    query, key, value, weights, top, total, out = kept
    if weights is None:
        # not the product of a forward pass beside it: one for all would be kept in float32, in several layouts
        query, key, top = jax.lax.optimization_barrier((query, key, top))
        weights = jnp.exp(_product("bqhe,bkhe->bhqk", query, key) - top).astype(value.dtype)
        weights = jax.lax.optimization_barrier(weights)
    grad = (grad.astype(jnp.float32) / total.transpose(0, 2, 1, 3)).astype(value.dtype)
    common = jnp.sum((grad * out).astype(jnp.float32), axis=-1).transpose(0, 2, 1)[..., None]
    logits_grad = weights.astype(jnp.float32) * (_product("bqhv,bkhv->bhqk", grad, value) - common)
    logits_grad = logits_grad.astype(query.dtype)
    query_grad = jnp.einsum("bhqk,bkhe->bqhe", logits_grad, key)
    key_grad = jnp.einsum("bhqk,bqhe->bkhe", logits_grad, query)
    value_grad = jnp.einsum("bhqk,bqhv->bkhv", weights, grad)
    return query_grad, key_grad, value_grad


_attention.defvjp(_attention_forward, _attention_backward)


def _product(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _like(vector: Array, x: Array) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
