"""Attention back ends: numbers against a NumPy oracle, and the table of the pure selection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import axes, types
from transformer_jax.nn import cudnn, kernels, masks

GOOD = kernels.Situation(
    platform="gpu", dtype="bfloat16", head_dim=64, value_dim=64, length=196, memory=196, compute_capability=8.0,
    library=True,
)  # fmt: skip
TPU = kernels.Situation(
    platform="tpu", kind="TPU v5 lite", dtype="bfloat16", head_dim=64, value_dim=64, length=1024, memory=1024
)


def oracle(query, key, value, mask=None):
    """One head of one example at a time, in float64."""
    batch, length, heads, head_dim = query.shape
    group = heads // key.shape[2]
    out = np.zeros((batch, length, heads, value.shape[3]))
    for b in range(batch):
        for h in range(heads):
            logits = np.float64(query[b, :, h]) @ np.float64(key[b, :, h // group]).T / np.sqrt(head_dim)
            if mask is not None:
                full = np.broadcast_to(mask, (batch, heads, length, key.shape[1]))[b, h]
                logits = np.where(full, logits, -np.inf)
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            out[b, :, h] = weights / weights.sum(axis=-1, keepdims=True) @ np.float64(value[b, :, h // group])
    return out


def draw(length=5, memory=7, heads=4, kv_heads=4, head_dim=8, value_dim=8, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = (2, length, heads, head_dim), (2, memory, kv_heads, head_dim), (2, memory, kv_heads, value_dim)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("value_dim", [8, 3])
@pytest.mark.parametrize("mask_shape", [None, (5, 7), (2, 5, 7), (2, 1, 1, 7), (1, 4, 5, 7), (2, 4, 5, 7)])
def test_attention_is_the_oracle(kv_heads, value_dim, mask_shape):
    arrays = draw(kv_heads=kv_heads, value_dim=value_dim)
    mask = None
    if mask_shape is not None:
        mask = np.random.default_rng(1).random(mask_shape) < 0.6
        mask[..., 0] = True
    out = kernels.attend(*arrays, mask=None if mask is None else jnp.asarray(mask))
    expanded = None if mask is None else np.asarray(masks.expand(jnp.asarray(mask)))
    np.testing.assert_allclose(out, oracle(*arrays, expanded), atol=2e-6)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_attention_and_its_gradients_are_those_of_jax(kv_heads):
    arrays = draw(kv_heads=kv_heads)
    mask = jnp.asarray(np.random.default_rng(1).random((2, 1, 5, 7)) < 0.7).at[..., 0].set(True)

    def ours(*arrays):
        return jnp.sum(jnp.sin(kernels.attend(*arrays, mask=mask)))

    def theirs(*arrays):
        return jnp.sum(jnp.sin(jax.nn.dot_product_attention(*arrays, mask=mask)))

    mine, other = (jax.jit(jax.value_and_grad(f, (0, 1, 2)))(*arrays) for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, other)


def test_heads_do_not_see_each_other():
    arrays = draw()
    together = kernels.attend(*arrays)
    for head in range(4):
        alone = kernels.attend(*[x[:, :, head : head + 1] for x in arrays])
        np.testing.assert_allclose(together[:, :, head : head + 1], alone, atol=1e-6)


def test_attention_to_a_permuted_memory_is_the_same():
    query, key, value = draw()
    order = np.random.default_rng(2).permutation(7)
    np.testing.assert_allclose(
        kernels.attend(query, key, value), kernels.attend(query, key[:, order], value[:, order]), atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_fully_masked_row_is_the_mean_with_finite_gradients(dtype):
    arrays = draw(dtype=dtype)
    mask = jnp.ones((5, 7), bool).at[2].set(False)
    out = kernels.attend(*arrays, mask=mask)
    np.testing.assert_allclose(np.float32(out[:, 2]), np.float32(arrays[2]).mean(axis=1), atol=2e-2)
    grads = jax.grad(lambda *a: jnp.sum(kernels.attend(*a, mask=mask).astype(jnp.float32) ** 2), (0, 1, 2))(*arrays)
    assert all(np.isfinite(np.float32(g)).all() for g in grads)


def test_huge_logits_stay_finite():
    query, key, value = draw()
    assert np.isfinite(kernels.attend(1e4 * query, 1e4 * key, value)).all()


def test_the_softmax_of_bfloat16_is_computed_in_float32():
    query, key, value = draw(dtype=jnp.bfloat16, memory=64)
    out = kernels.attend(query, key, value)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(out), oracle(*map(np.float32, (query, key, value))), atol=1e-2)


@pytest.mark.parametrize(("length", "memory"), [(5, 7), (7, 7), (1, 7)])
def test_causal_and_segments_are_the_masks_they_name(length, memory):
    arrays = draw(length=length, memory=memory)
    texts = masks.Segments(*(jnp.arange(size)[None] // 3 + jnp.zeros((2, 1), int) for size in (length, memory)))
    same = texts.query[:, :, None] == texts.memory[:, None, :]
    causal = kernels.attend(*arrays, causal=True)
    np.testing.assert_allclose(causal, kernels.attend(*arrays, mask=masks.causal(length, memory)), atol=1e-6)
    apart = kernels.attend(*arrays, segments=texts, mask=jnp.ones((2, 1, memory), bool))
    np.testing.assert_allclose(apart, kernels.attend(*arrays, mask=same), atol=1e-6)


@pytest.mark.parametrize(("good", "backend"), [(GOOD, "cudnn"), (TPU, "splash")])
def test_a_good_situation_has_no_obstacles(good, backend):
    assert kernels.obstacles(backend, good) == ()
    assert kernels.select("auto", good).backend == backend
    assert kernels.select(backend, good).backend == backend
    assert kernels.select("xla", good).backend == "xla"


@pytest.mark.parametrize(
    ("good", "change", "reason"),
    [
        (GOOD, {"library": False}, "the cuDNN library must be installed"),
        (GOOD, {"compute_capability": 7.5}, "Ampere or newer"),
        (GOOD, {"dtype": "float32"}, "bfloat16 or float16: it is float32"),
        (GOOD, {"head_dim": 60, "value_dim": 60}, "head_dim must be a multiple of 8 and at most 128: it is 60"),
        (GOOD, {"head_dim": 256, "value_dim": 256}, "head_dim must be a multiple of 8 and at most 128: it is 256"),
        (GOOD, {"value_dim": 32}, "value_dim must equal head_dim: they are 32 and 64"),
        (GOOD, {"causal": True, "length": 200}, "must each see a token: there are 200 of them and 196 tokens"),
        (TPU, {"kind": "TPU v2"}, "the TPU must be v4 or newer: it is TPU v2"),
        (TPU, {"kind": "TPU v3"}, "the TPU must be v4 or newer: it is TPU v3"),
        (TPU, {"dtype": "float16"}, "bfloat16 or float32: it is float16"),
        (TPU, {"mask_shape": (2, 1, 1024, 1024)}, r"the same for all heads and queries \(batch, 1, 1, memory\)"),
        (TPU, {"mask_shape": (2, 4, 1, 1024)}, r"the same for all heads and queries .* it has \(2, 4, 1, 1024\)"),
        (TPU, {"causal": True, "memory": 1023}, "must each see a token: there are 1024 of them and 1023 tokens"),
    ],
)
def test_each_condition_is_named_and_auto_falls_back(good, change, reason):
    case = dataclasses.replace(good, **change)
    choice = kernels.select("auto", case)
    assert choice.backend == "xla" and choice.reasons
    with pytest.raises(types.InputError, match=reason):
        kernels.select(kernels.FUSED[good.platform], case)


@pytest.mark.parametrize(
    ("backend", "platform"), [("cudnn", "cpu"), ("cudnn", "tpu"), ("splash", "cpu"), ("splash", "gpu")]
)
def test_a_kernel_of_another_platform_is_refused_and_never_automatic(backend, platform):
    case = dataclasses.replace(GOOD if backend == "cudnn" else TPU, platform=platform)
    assert kernels.select("auto", case).backend != backend
    with pytest.raises(types.InputError, match=f"the platform must be (gpu|tpu): it is {platform}"):
        kernels.select(backend, case)


@pytest.mark.parametrize(
    ("good", "change"),
    [
        (GOOD, {"dtype": "float16"}),
        (GOOD, {"length": 197, "memory": 197}),
        (GOOD, {"head_dim": 256, "value_dim": 256, "compute_capability": 9.0}),
        (GOOD, {"mask_shape": (1, 1, 196, 196)}),
        (GOOD, {"mask_shape": (2, 1, 1, 196)}),
        (GOOD, {"causal": True}),
        (TPU, {"kind": "TPU v4"}),
        (TPU, {"kind": "TPU v5"}),
        (TPU, {"kind": "TPU v6 lite"}),
        (TPU, {"kind": "TPU7x"}),
        (TPU, {"dtype": "float32", "head_dim": 80, "value_dim": 72}),
        (TPU, {"length": 1370, "memory": 1370}),
        (TPU, {"mask_shape": (2, 1, 1, 1024)}),
        (TPU, {"causal": True, "memory": 4096}),
    ],
)
def test_what_a_kernel_can_do_is_not_refused(good, change):
    assert kernels.select("auto", dataclasses.replace(good, **change)).backend == kernels.FUSED[good.platform]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"length": 197, "memory": 197}, "the length must be at least 1024 for splash to be worth it: it is 197"),
        ({"length": 1}, "the length must be at least 1024"),
        ({"memory": 77}, "the memory length must be at least 1024"),
    ],
)
def test_splash_is_for_long_sequences_unless_asked_for(change, reason):
    case = dataclasses.replace(TPU, **change)
    assert reason in " ".join(kernels.select("auto", case).reasons)
    assert kernels.select("splash", case).backend == "splash"


def test_explicit_cudnn_lists_every_unmet_condition():
    case = dataclasses.replace(GOOD, platform="cpu", dtype="float32", head_dim=36, value_dim=40)
    with pytest.raises(types.InputError) as error:
        kernels.select("cudnn", case)
    for words in ("4 more conditions", "platform", "float32", "head_dim", "value_dim", "set attention='auto'"):
        assert words in str(error.value)


@pytest.mark.parametrize(("backend", "platform"), [("cudnn", "gpu"), ("splash", "tpu")])
def test_an_explicit_kernel_is_refused_here_before_any_compile(backend, platform):
    with pytest.raises(types.InputError, match=f"the platform must be {platform}: it is cpu"):
        kernels.attend(*draw(), backend=backend)


def test_an_unknown_back_end_names_the_near_one():
    with pytest.raises(types.InputError, match="it is 'cudn'. Did you mean 'cudnn'"):
        kernels.select("cudn", GOOD)


def test_a_library_that_does_not_load_is_a_reason_not_a_crash(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(jax.nn, "dot_product_attention", missing)
    cudnn.library_loads.cache_clear()
    assert not cudnn.library_loads()
    cudnn.library_loads.cache_clear()


class Absent:
    """A placement on one device that this machine does not have."""

    examples_only = True

    def __init__(self, platform, kind, compute_capability=None):
        self.hardware = axes.Hardware(platform, kind, compute_capability)

    def constrain(self, x, names):
        return x

    def on_shards(self, function, inputs, output):
        return function


def test_the_library_is_asked_for_only_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(cudnn, "library_loads", lambda: pytest.fail("asked"))
    arrays = draw(dtype=jnp.bfloat16)
    kernels.attend(*arrays)
    with axes.placed(Absent("gpu", "NVIDIA H100 80GB HBM3", 9.0)):
        assert kernels.situation(*arrays, None).library


def test_what_is_traced_for_an_absent_gpu_keeps_no_weights():
    """JAX cannot trace cuDNN here: what stands in for it has its numbers and keeps as little."""
    arrays = draw(length=64, memory=64, dtype=jnp.bfloat16)
    with axes.placed(Absent("gpu", "NVIDIA H100 80GB HBM3", 9.0)):
        out, pull = jax.vjp(kernels.attend, *arrays)
    np.testing.assert_allclose(np.float32(out), np.float32(kernels.attend(*arrays)), atol=2e-2)
    assert not any(x.shape[-2:] == (64, 64) for x in jax.tree.leaves(pull) if hasattr(x, "shape"))
