"""What the CPU runs instead of the plain layers: the same numbers, with backward passes that keep and move less.

XLA differentiates a formula by keeping whatever its steps produced. On a CPU every kept megabyte is written, read
again, and first of all given by the operating system page by page: a fifth of a ViT's training step went there. These
functions keep only what the matrix products need, work out the rest again, and show dense layers their tokens as the
rows of one matrix (XLA is up to twice as slow on 3-D input here). benchmarks.md has the figures.

Accelerators keep the plain formulas: their compiler fuses them, and must see which axis is sharded.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from transformer_jax import axes

Combine = Callable[..., Array]


def wanted() -> bool:
    """Whether the layers take these formulations: on a CPU, where no tokens or features of an example lie elsewhere."""
    return axes.hardware().platform == "cpu" and axes.examples_only()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def dense(
    combine: Combine,
    contract: int,
    parts: tuple[Float[Array, "..."], ...],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None,
) -> Float[Array, "..."]:
    """`combine(*parts) @ kernel + bias` over the last `contract` axes; of the operands only `parts` are kept."""
    x = combine(*parts)
    y = _rows(x, contract) @ _matrix(kernel, contract)
    y = y if bias is None else y + bias.reshape(1, -1)
    return y.reshape(*x.shape[: x.ndim - contract], *kernel.shape[contract:])


def _dense_forward(combine, contract, parts, kernel, bias):
    return dense(combine, contract, parts, kernel, bias), (parts, kernel, bias is None)


def _dense_backward(combine, contract, kept, grad):
    parts, kernel, unbiased = kept
    matrix = _matrix(kernel, contract)
    rows = grad.reshape(-1, matrix.shape[1])
    if combine is not identity:
        parts = tuple(after(part, grad, contract) for part in parts)
    x, pull = jax.vjp(combine, *parts)
    kernel_grad = _outer(_rows(x, contract), rows).reshape(kernel.shape)
    bias_grad = None if unbiased else jnp.sum(rows, axis=0).reshape(kernel.shape[contract:])
    return pull((rows @ matrix.T).reshape(x.shape)), kernel_grad, bias_grad


dense.defvjp(_dense_forward, _dense_backward)


def identity(x: Array) -> Array:
    """`x`: the dense layer of one part as it is."""
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_norm(
    epsilon: float,
    x: Float[Array, "*rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"] | None,
) -> Float[Array, "*rows features"]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias` over the last axis; keeps `x` and two numbers a row."""
    return _layer_norm_forward(epsilon, x, scale, bias)[0]


def _layer_norm_forward(epsilon, x, scale, bias):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True) + epsilon)
    y = (x - mean) * inverse * _like(scale, x)
    return y if bias is None else y + _like(bias, x), (x, mean, inverse, scale, bias is None)


def _layer_norm_backward(epsilon, kept, grad):
    x, mean, inverse, scale, unbiased = kept
    normal, rows = (x - mean) * inverse, tuple(range(x.ndim - 1))
    inner = grad * _like(scale, x)
    shift, tilt = (jnp.mean(part, axis=-1, keepdims=True) for part in (inner, inner * normal))
    bias_grad = None if unbiased else jnp.sum(grad, axis=rows)
    return (inner - shift - normal * tilt) * inverse, jnp.sum(grad * normal, axis=rows), bias_grad


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory kv_heads head_dim"],
    value: Float[Array, "batch memory kv_heads value_dim"],
    mask: Bool[Array, "_ _ _ _"] | None,
) -> Float[Array, "batch length heads value_dim"]:
    """`softmax(query key^T) value` as `plain.attend` lays it out; the weights are worked out again, not kept."""
    return _attention_forward(query, key, value, mask)[0]


def _attention_forward(query, key, value, mask):
    length, groups = query.shape[1], key.shape[2]
    query, key, value = (by_head(x, groups) for x in (query, key, value))
    mask = None if mask is None else _mask_by_head(mask, query.shape[2] // length * groups, length, groups)
    logits = _logits(query, key, mask)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = _product("bgrk,bgkv->bgrv", weights.astype(value.dtype), value) / total
    out = by_token(out.astype(value.dtype), length)
    return out, (query, key, value, mask, out, top, total)


def _attention_backward(kept, grad):
    query, key, value, mask, out, top, total = kept
    length, groups = grad.shape[1], key.shape[1]
    common = by_head(jnp.sum((grad * out).astype(jnp.float32), axis=-1, keepdims=True), groups)
    grad = by_head(grad, groups)
    weights = jnp.exp(_logits(after(query, grad), key, mask) - top) / total
    logits_grad = weights * (_product("bgrv,bgkv->bgrk", grad, value) - common)
    logits_grad = (logits_grad if mask is None else jnp.where(mask, logits_grad, 0.0)).astype(query.dtype)
    query_grad = jnp.einsum("bgrk,bgke->bgre", logits_grad, key)
    key_grad = jnp.einsum("bgrk,bgre->bgke", logits_grad, query)
    value_grad = jnp.einsum("bgrk,bgrv->bgkv", weights.astype(value.dtype), grad)
    memory = key.shape[2]
    return by_token(query_grad, length), by_token(key_grad, memory), by_token(value_grad, memory), None


attention.defvjp(_attention_forward, _attention_backward)


def by_head(x: Array, groups: int) -> Array:
    """(batch, length, heads, size) as (batch, groups, rows, size), the heads of a group below each other."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], groups, -1, x.shape[3])


def by_token(x: Array, length: int) -> Array:
    """The inverse of `by_head`."""
    return x.reshape(x.shape[0], -1, length, x.shape[3]).transpose(0, 2, 1, 3)


def _mask_by_head(mask: Array, heads: int, length: int, groups: int) -> Array:
    if heads == groups:
        return mask
    batch, memory = mask.shape[0], mask.shape[3]
    return jnp.broadcast_to(mask, (batch, heads, length, memory)).reshape(batch, groups, -1, memory)


def _logits(query: Array, key: Array, mask: Array | None) -> Array:
    logits = _product("bgre,bgke->bgrk", query, key)
    return logits if mask is None else jnp.where(mask, logits, jnp.finfo(logits.dtype).min)


def after(x: Array, grad: Array, axes: int = 1) -> Array:
    """`x`, but not before `grad` is there; else the compiler finds the same formula twice and keeps its result.

    It ignores `optimization_barrier` on CPU. Zero times a gradient is zero for any that may be used.
    """
    tokens = x.shape[: x.ndim - axes]
    return x + (0.0 * grad.reshape(*tokens, -1)[..., :1]).reshape(*tokens, *(1,) * axes).astype(x.dtype)


def _product(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _outer(x: Array, rows: Array) -> Array:
    """`x.T @ rows`. XLA's product is a quarter slower where the result is longer than wide: there, turned round."""
    if x.shape[1] <= rows.shape[1]:
        return x.T @ rows
    return (rows.T @ x + 0.0 * x[:1]).T  # without something added the compiler would turn it back


def _rows(x: Array, contract: int) -> Array:
    return x.reshape(-1, math.prod(x.shape[x.ndim - contract :]))


def _matrix(kernel: Array, contract: int) -> Array:
    return kernel.reshape(math.prod(kernel.shape[:contract]), -1)


def _like(vector: Array, x: Array) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
