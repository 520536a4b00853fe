"""Attention back ends: numbers against a NumPy oracle, and the table of the pure selection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.nn import kernels, masks

GOOD = kernels.Situation(
    platform="gpu", dtype="bfloat16", head_dim=64, value_dim=64, length=196, memory=196, compute_capability=8.0,
    library=True,
)  # fmt: skip


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


def test_a_good_situation_has_no_obstacles():
    assert kernels.obstacles(GOOD) == ()
    assert kernels.select("auto", GOOD).backend == "cudnn"
    assert kernels.select("cudnn", GOOD).backend == "cudnn"
    assert kernels.select("xla", GOOD).backend == "xla"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"platform": "cpu"}, "the platform must be gpu: it is cpu"),
        ({"platform": "tpu"}, "the platform must be gpu: it is tpu"),
        ({"library": False}, "the cuDNN library must be installed"),
        ({"compute_capability": 7.5}, "Ampere or newer"),
        ({"dtype": "float32"}, "bfloat16 or float16: it is float32"),
        ({"head_dim": 60, "value_dim": 60}, "head_dim must be a multiple of 8 and at most 128: it is 60"),
        ({"head_dim": 256, "value_dim": 256}, "head_dim must be a multiple of 8 and at most 128: it is 256"),
        ({"value_dim": 32}, "value_dim must equal head_dim: they are 32 and 64"),
        ({"length": 197}, "the length must be even when differentiated: it is 197"),
        ({"memory": 197}, "the memory length must be even when differentiated: it is 197"),
        ({"mask_shape": (2, 1, 1, 196)}, r"a mask must carry the full lengths \(196, 196\): it has \(1, 196\)"),
    ],
)
def test_each_condition_is_named_and_auto_falls_back(change, reason):
    case = dataclasses.replace(GOOD, **change)
    choice = kernels.select("auto", case)
    assert choice.backend == "xla"
    with pytest.raises(types.InputError, match=reason):
        kernels.select("cudnn", case)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16"},
        {"length": 197, "memory": 197, "differentiated": False},
        {"head_dim": 256, "value_dim": 256, "compute_capability": 9.0},
        {"mask_shape": (1, 1, 196, 196)},
        {"platform": "cuda"},
    ],
)
def test_what_cudnn_can_do_is_not_refused(change):
    assert kernels.select("auto", dataclasses.replace(GOOD, **change)).backend == "cudnn"


def test_explicit_cudnn_lists_every_unmet_condition():
    case = dataclasses.replace(GOOD, platform="cpu", dtype="float32", head_dim=36, value_dim=36, length=197)
    with pytest.raises(types.InputError) as error:
        kernels.select("cudnn", case)
    for words in ("5 more conditions", "platform", "float32", "head_dim", "value_dim", "197", "set attention='auto'"):
        assert words in str(error.value)


def test_explicit_cudnn_is_refused_here_before_any_compile():
    with pytest.raises(types.InputError, match="the platform must be gpu: it is cpu"):
        kernels.attend(*draw(), backend="cudnn")


def test_an_unknown_back_end_names_the_near_one():
    with pytest.raises(types.InputError, match="it is 'cudn'. Did you mean 'cudnn'"):
        kernels.select("cudn", GOOD)


def test_a_library_that_does_not_load_is_a_reason_not_a_crash(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(jax.nn, "dot_product_attention", missing)
    kernels.library_loads.cache_clear()
    assert not kernels.library_loads()
    kernels.library_loads.cache_clear()
