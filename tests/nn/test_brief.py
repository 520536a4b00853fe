"""The formulations of TPUs give the numbers of the plain ones, gradients included."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import axes
from transformer_jax.nn import brief, mlp, norms, plain

TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


class Tpu:
    """A placement that says TPU and places nothing."""

    hardware = axes.Hardware("tpu", "TPU v5 lite")
    examples_only = True

    def constrain(self, x, names):
        return x

    def on_shards(self, function, inputs, output):
        return function


def placed(where):
    """As on a TPU, or as on an accelerator that has no formulations of its own."""
    there = Tpu()
    if where != "tpu":
        there.hardware = axes.Hardware("gpu", "some GPU")
    return axes.placed(there)


def with_gradients(function, *args):
    """The value of `function`, and the gradients of a sum that weighs all of it differently."""

    def total(*args):
        y = function(*args).astype(jnp.float32)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return function(*args), jax.grad(total, argnums=tuple(range(len(args))))(*args)


def close(a, b, dtype):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=TOLERANCE[dtype] * (1 + np.max(np.abs(other))), rtol=0)


def normal(seed, *shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm(dtype, use_bias):
    norm = norms.LayerNorm(24, use_bias=use_bias, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    norm.scale[...] = normal(1, 24)
    graph, params = nnx.split(norm)

    def call(params, x):
        return nnx.merge(graph, params, copy=True)(x)

    found = {}
    for where in ("tpu", "gpu"):
        with placed(where):
            found[where] = with_gradients(call, params, 3.0 + 2.0 * normal(2, 2, 5, 24, dtype=dtype))
    close(found["tpu"], found["gpu"], dtype)


def test_the_variance_of_half_precision_is_as_good_as_its_rounding():
    """Means up to 100 deviations away: beside float64 of the same numbers it is off by less than they are rounded."""
    x = (100.0 + normal(3, 64, 512)).astype("bfloat16")
    found = brief.layer_norm(1e-6, jnp.float32, x, jnp.ones(512), None)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, exact, rtol=5e-3, atol=5e-3)


def test_a_constant_row_has_finite_gradients():
    value, grads = with_gradients(
        lambda x: brief.layer_norm(1e-6, jnp.bfloat16, x, jnp.ones(8), None), jnp.full((2, 8), 7.0, "bfloat16")
    )
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves((value, grads)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("length, memory, repeated", [(7, 7, False), (5, 9, False), (5, 9, True)])
def test_attention(dtype, length, memory, repeated):
    query, key, value = (normal(i, 2, n, 3, 8, dtype=dtype) for i, n in enumerate((length, memory, memory)))
    found = {}
    for where in ("tpu", "gpu"):
        with placed(where):
            attend = functools.partial(plain.attend, mask=None)
            with brief.repeated(repeated):
                found[where] = with_gradients(attend, 3.0 * query, key, value)
    close(found["tpu"], found["gpu"], dtype)


def test_large_logits_do_not_overflow():
    query = jnp.full((1, 3, 1, 4), 1e3)
    value, grads = with_gradients(brief.attention, query, query, normal(0, 1, 3, 1, 4))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("activation", list(mlp.ACTIVATIONS))
@pytest.mark.parametrize("kind", list(mlp.MLPS))
def test_mlp(dtype, activation, kind):
    layer = mlp.MLPS[kind](8, 16, activation=activation, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def call(params, x):
        return nnx.merge(graph, params, rest, copy=True)(x)

    found = {}
    for where in ("tpu", "gpu"):
        with placed(where):
            found[where] = with_gradients(call, params, normal(1, 2, 5, 8, dtype=dtype))
    close(found["tpu"], found["gpu"], dtype)


@pytest.mark.parametrize("platform, taken", [("tpu", True), ("gpu", False), ("cpu", False)])
def test_only_tpus_take_them(platform, taken):
    there = Tpu()
    there.hardware = axes.Hardware(platform, "some device")
    with contextlib.ExitStack() as stack:
        stack.enter_context(axes.placed(there))
        assert brief.wanted() is taken
