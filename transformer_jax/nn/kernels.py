"""Scaled dot-product attention behind one signature, with a choice of back ends and the reasons for it.

`select` is pure: it looks only at the `Situation` it is given, so that its table can be tested anywhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from transformer_jax import axes, paths, types
from transformer_jax.nn import cudnn, masks, plain

Local = Callable[..., jax.Array]
BACKENDS = ("auto", "xla", "cudnn", "splash")
FUSED = {"gpu": "cudnn", "tpu": "splash"}
"""What `auto` considers on which platform."""
SPLASH_FROM = 1024
"""Tokens from which splash is taken unasked: where it needs much less memory than XLA's attention (benchmarks.md)."""

EQUAL_PARTS = 16
"""What queries are filled up to a multiple of before devices share them: 2, 4, 8 or 16 of them get equal parts."""
MASK_AXES = ("batch", "heads", "length")


@dataclasses.dataclass(frozen=True)
class Situation:
    """All that the choice of a back end depends on."""

    platform: str
    dtype: str
    head_dim: int
    value_dim: int
    length: int
    memory: int
    kind: str = ""
    """As JAX names the device: `TPU v5 lite`."""
    compute_capability: float | None = None
    """Of the GPU: 8.0 Ampere, 9.0 Hopper; `None` where there is none."""
    library: bool = False
    """Whether cuDNN can be loaded."""
    mask_shape: tuple[int, ...] | None = None
    """(batch, heads, length, memory) of a mask that is an array, 1 where it is broadcast."""
    causal: bool = False


class Choice(NamedTuple):
    """A back end and why: what speaks against the fused kernel when it was not taken."""

    backend: str
    reasons: tuple[str, ...]


def select(backend: str, case: Situation) -> Choice:
    """The back end for `case`: `auto` takes the platform's fused kernel where it can and where that is worth it.

    Raises `InputError`, with every reason, when a kernel that is asked for by name cannot be had.
    """
    paths.one_of("The attention back end", backend, BACKENDS)
    if backend == "xla":
        return Choice("xla", ("asked for",))
    fused = FUSED.get(case.platform) if backend == "auto" else backend
    if fused is None:
        return Choice("xla", (f"no fused kernel is for {case.platform}: cudnn is for gpu, splash for tpu",))
    against = obstacles(fused, case)
    if backend != "auto" and against:
        more = f"{len(against)} more condition{'s' * (len(against) > 1)}"
        raise types.InputError(
            f"Attention with {fused} needs {more}: {'; '.join(against)}. Change them, or set attention='auto' or 'xla'."
        )
    if backend == "auto" and fused == "splash":
        against += _not_worth_splash(case)
    return Choice("xla", against) if against else Choice(fused, ("every condition is met",))


def obstacles(backend: str, case: Situation) -> tuple[str, ...]:
    """Every condition of a fused kernel, `cudnn` or `splash`, that `case` does not meet."""
    found = tuple((_against_cudnn if backend == "cudnn" else _against_splash)(case))
    if case.causal and case.length > case.memory:
        found += (f"causal queries must each see a token: there are {case.length} of them and {case.memory} tokens",)
    return found


def _against_cudnn(case: Situation) -> Iterator[str]:
    if case.platform != "gpu":
        yield f"the platform must be gpu: it is {case.platform}"
    elif not case.library:
        yield "the cuDNN library must be installed: it cannot be loaded (install the extra `cuda`)"
    if case.compute_capability is not None and case.compute_capability < 8.0:
        yield f"the GPU must be Ampere or newer (compute capability 8.0): it has {case.compute_capability}"
    if case.dtype not in ("bfloat16", "float16"):
        yield f"the compute dtype must be bfloat16 or float16: it is {case.dtype}"
    limit = 256 if (case.compute_capability or 0.0) >= 9.0 else 128
    for name, size in (("head_dim", case.head_dim), ("value_dim", case.value_dim)):
        if size % 8 or size > limit:
            yield f"{name} must be a multiple of 8 and at most {limit}: it is {size}"
    if case.value_dim != case.head_dim:
        yield f"value_dim must equal head_dim: they are {case.value_dim} and {case.head_dim}"


def _against_splash(case: Situation) -> Iterator[str]:
    if case.platform != "tpu":
        yield f"the platform must be tpu: it is {case.platform}"
    elif case.kind.startswith(("TPU v2", "TPU v3")):
        yield f"the TPU must be v4 or newer: it is {case.kind}"
    if case.dtype not in ("bfloat16", "float32"):
        yield f"the compute dtype must be bfloat16 or float32: it is {case.dtype}"
    if case.mask_shape is not None and case.mask_shape[1:3] != (1, 1):
        yield (
            f"a mask must be the same for all heads and queries (batch, 1, 1, memory): it has {case.mask_shape}"
            " (say causal=True or segments= for what depends on the query)"
        )


def _not_worth_splash(case: Situation) -> tuple[str, ...]:
    sizes = (("length", case.length), ("memory length", case.memory))
    return tuple(
        f"the {name} must be at least {SPLASH_FROM} for splash to be worth it: it is {size}"
        for name, size in sizes
        if size < SPLASH_FROM
    )


def attend(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory kv_heads head_dim"],
    value: Float[Array, "batch memory kv_heads value_dim"],
    *,
    mask: Bool[Array, "..."] | None = None,
    causal: bool = False,
    segments: masks.Segments | None = None,
    differentiated: bool = True,
    backend: str = "auto",
) -> Float[Array, "batch length heads value_dim"]:
    """`softmax(query key^T / sqrt(head_dim)) value`, the softmax in float32 over the memory that all masks keep.

    Query head i reads key head `i // (heads / kv_heads)`. A query that may attend to nothing takes the mean of all
    values: finite, with finite gradients. `causal` is `masks.causal` and `segments` keeps texts apart: said so, and not
    as an array, fused kernels know them. Say `differentiated=False` where no gradient will be asked for.

    Queries stay where their tokens are; keys and values are gathered, where tokens of an example lie on many devices.
    """
    mask = None if mask is None else masks.expand(mask)
    key, value = (_gathered(x, _heads(query, key)) for x in (key, value))
    choice = select(backend, situation(query, key, value, mask, causal=causal))
    last = jnp.arange(query.shape[1]) + key.shape[1] - query.shape[1] if causal else None
    local = _kernel(choice.backend, query, key, causal=causal, differentiated=differentiated)
    if local is None:
        return plain.attend(query, key, value, masks.allowed(mask, segments, last, key.shape[1]))
    return _on_devices(local, (query, key, value), mask, segments, last)


def situation(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, *, causal: bool = False
) -> Situation:
    """What `select` needs to know of these arrays and of the hardware that the program is traced for."""
    device = axes.hardware()
    return Situation(
        platform=device.platform,
        dtype=str(query.dtype),
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        length=query.shape[1],
        memory=key.shape[1],
        kind=device.kind,
        compute_capability=device.compute_capability,
        library=device.platform == "gpu" and (jax.default_backend() != "gpu" or cudnn.library_loads()),
        mask_shape=None if mask is None else mask.shape,
        causal=causal,
    )


def _kernel(backend: str, query: jax.Array, key: jax.Array, *, causal: bool, differentiated: bool) -> Local | None:
    """What every device runs on its part; `None` for XLA's own attention, which the compiler cuts itself."""
    if backend == "splash":
        from transformer_jax.nn import flash

        return flash.attend
    lengths, device = (query.shape[1], key.shape[1]), axes.hardware().platform
    if backend == "cudnn" and jax.default_backend() == "gpu":
        square = causal and lengths[0] == lengths[1] and axes.examples_only()
        return functools.partial(cudnn.attend, square=square, differentiated=differentiated)
    # JAX cannot trace cuDNN where there is none: a plan for an absent GPU counts its memory by these pieces.
    return plain.in_pieces if backend == "cudnn" or (device != "cpu" and min(lengths) >= 2 * plain.PIECE) else None


def _heads(query: jax.Array, key: jax.Array) -> str:
    return "heads" if query.shape[2] == key.shape[2] else "kv_heads"


def _gathered(x: jax.Array, heads: str) -> jax.Array:
    """Keys or values, made where their tokens lie and then sent to every device that has queries for them."""
    return axes.constrain(axes.constrain(x, "batch", "length", heads, None), "batch", "memory", heads, None)


def _on_devices(
    local: Local,
    arrays: tuple[jax.Array, jax.Array, jax.Array],
    mask: jax.Array | None,
    segments: masks.Segments | None,
    last: jax.Array | None,
) -> jax.Array:
    """`local` on every device's examples, heads and queries, with all keys and values of these."""
    inputs = _parts(*arrays, mask, segments, last)

    def run(*parts: jax.Array) -> jax.Array:
        given: dict[str, Any] = dict(zip(inputs, parts, strict=True))
        if segments is not None:
            given["segments"] = masks.Segments(given.pop("of_query"), given.pop("of_memory"))
        out = local(**given)
        if mask is None and segments is None:  # `last` alone leaves every query something
            return out
        rules = [given.get(name) for name in ("mask", "segments", "last")]
        kept = masks.allowed(*rules, memory=given["key"].shape[1])
        return _mean_of_the_blind(out, given["value"], kept)

    spread = axes.on_shards(run, [names for _, names in inputs.values()], ("batch", "length", "heads", None))
    return spread(*(x for x, _ in inputs.values()))[:, : arrays[0].shape[1]]


def _parts(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    segments: masks.Segments | None,
    last: jax.Array | None,
) -> dict[str, tuple[jax.Array, axes.Names]]:
    """Those that are given, with the names of the axes that may be cut; queries filled up so that they can be."""
    length, whole = query.shape[1], ("batch", None, _heads(query, key), None)
    filled = length if axes.examples_only() or length < EQUAL_PARTS else -(-length // EQUAL_PARTS) * EQUAL_PARTS

    def fill(x: jax.Array, axis: int) -> jax.Array:
        missing = filled - length if x.shape[axis] == length else 0
        return jnp.pad(x, [(0, missing * (i == axis)) for i in range(x.ndim)], mode="edge") if missing else x

    inputs: dict[str, tuple[jax.Array, axes.Names]] = {
        "query": (fill(query, 1), ("batch", "length", "heads", None)),
        "key": (key, whole),
        "value": (value, whole),
    }
    if mask is not None:
        cut = [name if size > 1 else None for name, size in zip(MASK_AXES, mask.shape[:3], strict=True)]
        inputs["mask"] = (fill(mask, 2), (*cut, None))
    if segments is not None:
        inputs["of_query"] = (fill(segments.query, 1), ("batch", "length"))
        inputs["of_memory"] = (segments.memory, ("batch", None))
    if last is not None:
        inputs["last"] = (fill(last, 0), ("length",))
    return inputs


def _mean_of_the_blind(out: jax.Array, value: jax.Array, kept: jax.Array | None) -> jax.Array:
    """`out`, where a query that may attend to nothing takes the mean: kernels disagree about it."""
    if kept is None:
        return out
    some = jnp.any(kept, axis=3, keepdims=True).transpose(0, 2, 1, 3)
    mean = jnp.mean(value, axis=1, keepdims=True, dtype=jnp.float32).astype(out.dtype)
    return jnp.where(some, out, jnp.repeat(mean, out.shape[2] // value.shape[2], axis=2))
