"""What the CPU runs: the numbers and gradients of the plain formulas, and less kept for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax.models import functional
from transformer_jax.nn import kernels, lean, linear, mlp, norms


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_as_plain(function, args, monkeypatch, *, atol=1e-5):
    """`function(*args)` and its gradients, lean and plain."""

    def both():
        weights = normal(*jax.eval_shape(function, *args).shape, seed=99)
        return jax.value_and_grad(lambda args: jnp.sum(function(*args) * weights))(args)

    assert lean.wanted()
    ours = both()
    with monkeypatch.context() as patch:
        patch.setattr(lean, "wanted", lambda: False)
        plain = both()

    def close(a, b):  # cancellation leaves small numbers the rounding errors of the large ones beside them
        np.testing.assert_allclose(a, b, atol=atol * max(1.0, float(np.abs(b).max())), rtol=1e-5)

    jax.tree.map(close, ours, plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("contract", "kernel"), [(1, (6, 5)), (1, (6, 2, 4)), (2, (3, 6, 5))])
def test_a_dense_layer(contract, kernel, bias, monkeypatch):
    bias = normal(*kernel[contract:], seed=2) if bias else None

    def dense(x, kernel, bias):
        return linear.dense(x, kernel=kernel, bias=bias, contract=contract)

    assert_as_plain(dense, (normal(2, 4, *kernel[:contract]), normal(*kernel, seed=1), bias), monkeypatch)


@pytest.mark.parametrize("name", mlp.MLPS)
@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
def test_an_mlp(name, activation, monkeypatch):
    layer = mlp.MLPS[name](8, 16, activation=activation, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def apply(params, x):
        return nnx.merge(graph, params, rest)(x)

    assert_as_plain(apply, (nnx.to_pure_dict(params), normal(2, 5, 8)), monkeypatch)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_layer_norm(use_bias, monkeypatch):
    layer = norms.LayerNorm(8, use_bias=use_bias, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=3), nnx.to_pure_dict(params))
    assert_as_plain(lambda p, x: nnx.merge(graph, p)(x), (params, 3.0 + normal(2, 5, 8)), monkeypatch)


MASKS = {
    "none": None,
    "causal": np.tril(np.ones((6, 6), bool)),
    "per head": np.random.default_rng(0).random((2, 4, 6, 6)) > 0.5,
    "padding": np.arange(6)[None, None, None] < np.array([6, 3])[:, None, None, None],
    "nothing kept": np.zeros((6, 6), bool),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("kv_heads", "value_dim"), [(4, 8), (2, 5), (1, 8)])
def test_attention(mask, kv_heads, value_dim, monkeypatch):
    keep = None if MASKS[mask] is None else jnp.asarray(MASKS[mask])
    args = normal(2, 6, 4, 8), normal(2, 6, kv_heads, 8, seed=1), normal(2, 6, kv_heads, value_dim, seed=2)
    assert_as_plain(lambda q, k, v: kernels.attend(q, k, v, mask=keep, backend="xla"), args, monkeypatch)


def test_attention_in_bfloat16_is_that_of_float32_to_its_precision():
    args = [normal(2, 6, 2, 8, seed=i) for i in range(3)]
    exact, rough = (
        jax.grad(lambda args: jnp.sum(jnp.sin(kernels.attend(*args)).astype(jnp.float32)))(cast)
        for cast in (args, [x.astype(jnp.bfloat16) for x in args])
    )
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_allclose(a, b.astype(jnp.float32), atol=0.05)


TINY = dict(
    variant=None, width=16, depth=3, heads=2, mlp_dim=32, patch=4, image_size=16, num_classes=5, head_zero=False
)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", [None, "dots"])
def test_a_whole_vit(scan, remat, monkeypatch):
    model = functional.from_family("vit", **TINY, scan=scan, remat=remat)
    params = jax.jit(model.init)(jax.random.key(0))
    image, key = normal(2, 16, 16, 3), jax.random.key(1)
    assert_as_plain(lambda p: jax.jit(lambda p: model.apply(p, image, key=key))(p), (params,), monkeypatch)


@pytest.mark.parametrize("scan", [True, False])
def test_a_vit_keeps_a_sixth_less_than_the_plain_one(scan, monkeypatch):
    model = functional.from_family("vit", **{**TINY, "width": 64, "mlp_dim": 256, "image_size": 32}, scan=scan)
    image = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)

    def kept():
        gradient = jax.jit(jax.grad(lambda p, x: model.apply(p, x, key=jax.random.key(0)).sum()))
        return gradient.lower(model.abstract, image).compile().memory_analysis().temp_size_in_bytes

    ours = kept()
    monkeypatch.setattr(lean, "wanted", lambda: False)
    assert ours < kept() * 5 / 6
