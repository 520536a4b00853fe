"""Scaled dot-product attention behind one signature, with a choice of back ends and the reasons for it.

`select` is pure: it looks only at the `Situation` it is given, so that its table can be tested anywhere.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from transformer_jax import axes, paths, types
from transformer_jax.nn import lean, masks

BACKENDS = ("auto", "xla", "cudnn")


@dataclasses.dataclass(frozen=True)
class Situation:
    """All that the choice of a back end depends on."""

    platform: str
    dtype: str
    head_dim: int
    value_dim: int
    length: int
    memory: int
    compute_capability: float | None = None
    """Of the GPU: 8.0 Ampere, 9.0 Hopper; `None` where there is none."""
    library: bool = False
    """Whether cuDNN can be loaded."""
    mask_shape: tuple[int, ...] | None = None
    """(batch, heads, length, memory), 1 where it is broadcast."""
    differentiated: bool = True


class Choice(NamedTuple):
    """A back end and why: what speaks against cuDNN when it was not taken."""

    backend: str
    reasons: tuple[str, ...]


def obstacles(case: Situation) -> tuple[str, ...]:
    """Every condition of cuDNN's fused attention that `case` does not meet."""
    found = []
    if case.platform not in ("gpu", "cuda"):
        found.append(f"the platform must be gpu: it is {case.platform}")
    elif not case.library:
        found.append("the cuDNN library must be installed: it cannot be loaded (install the extra `cuda`)")
    if case.compute_capability is not None and case.compute_capability < 8.0:
        found.append(f"the GPU must be Ampere or newer (compute capability 8.0): it has {case.compute_capability}")
    if case.dtype not in ("bfloat16", "float16"):
        found.append(f"the compute dtype must be bfloat16 or float16: it is {case.dtype}")
    limit = 256 if (case.compute_capability or 0.0) >= 9.0 else 128
    for name, size in (("head_dim", case.head_dim), ("value_dim", case.value_dim)):
        if size % 8 or size > limit:
            found.append(f"{name} must be a multiple of 8 and at most {limit}: it is {size}")
    if case.value_dim != case.head_dim:
        found.append(f"value_dim must equal head_dim: they are {case.value_dim} and {case.head_dim}")
    if case.differentiated:
        for name, size in (("length", case.length), ("memory length", case.memory)):
            if size % 2:
                found.append(f"the {name} must be even when differentiated: it is {size}")
    if case.mask_shape is not None and case.mask_shape[2:] != (case.length, case.memory):
        found.append(f"a mask must carry the full lengths {(case.length, case.memory)}: it has {case.mask_shape[2:]}")
    return tuple(found)


def select(backend: str, case: Situation) -> Choice:
    """The back end for `case`: `auto` takes cuDNN where it can; `cudnn` where it cannot is an `InputError`."""
    paths.one_of("The attention back end", backend, BACKENDS)
    if backend == "xla":
        return Choice("xla", ("asked for",))
    against = obstacles(case)
    if not against:
        return Choice("cudnn", ("every condition is met",))
    if backend == "auto":
        return Choice("xla", against)
    raise types.InputError(
        f"Attention with cudnn needs {len(against)} more condition{'s' * (len(against) > 1)}: {'; '.join(against)}."
        " Change them, or set attention='auto' or 'xla'."
    )


def attend(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory kv_heads head_dim"],
    value: Float[Array, "batch memory kv_heads value_dim"],
    *,
    mask: Bool[Array, "..."] | None = None,
    backend: str = "auto",
) -> Float[Array, "batch length heads value_dim"]:
    """`softmax(query key^T / sqrt(head_dim)) value`, the softmax in float32 over the memory that `mask` keeps.

    Query head i reads key head `i // (heads / kv_heads)`. A query that may attend to nothing takes the mean of all
    values: finite, with finite gradients.
    """
    mask = None if mask is None else masks.expand(mask)
    choice = select(backend, situation(query, key, value, mask))
    if choice.backend == "cudnn":
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    return xla(query, key, value, mask)


def situation(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> Situation:
    """What `select` needs to know of these arrays and of the default device."""
    device = axes.hardware()
    return Situation(
        platform=device.platform,
        dtype=str(query.dtype),
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        length=query.shape[1],
        memory=key.shape[1],
        compute_capability=device.compute_capability,
        library=device.platform == "gpu" and library_loads(),
        mask_shape=None if mask is None else mask.shape,
    )


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


def xla(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Attention as two batched matrix products in (batch, head, length, memory) layout.

    Grouped queries stand as more rows of their one key head, so keys and values are never repeated.
    """
    if lean.wanted():
        return lean.attention(query * query.shape[-1] ** -0.5, key, value, mask)
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
