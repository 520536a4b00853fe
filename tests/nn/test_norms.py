"""Norms: one shared contract, then each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import norms

FLAX = {"layernorm": nnx.LayerNorm, "rmsnorm": nnx.RMSNorm}


def test_every_norm_is_compared_with_flax():
    assert set(FLAX) == set(norms.NORMS)


def build(name, **options):
    norm = norms.NORMS[name](8, rngs=nnx.Rngs(0), **options)
    norm.scale[...] = jnp.linspace(0.5, 2.0, 8)
    return norm


def numbers(shift=0.0, scale=1.0):
    return jnp.asarray(shift + scale * np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)


@pytest.mark.parametrize("name", FLAX)
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_a_norm_and_its_gradient_are_those_of_flax(name, epsilon):
    ours, x = build(name, epsilon=epsilon), numbers(shift=1.0)
    theirs = FLAX[name](8, epsilon=epsilon, rngs=nnx.Rngs(0))
    theirs.scale[...] = ours.scale[...]
    np.testing.assert_allclose(ours(x), theirs(x), atol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        *[jax.grad(lambda x, norm=norm: jnp.sum(jnp.sin(norm(x))))(x) for norm in (ours, theirs)],
    )


@pytest.mark.parametrize("name", FLAX)
def test_the_scale_of_the_input_does_not_matter(name):
    np.testing.assert_allclose(build(name)(numbers()), build(name)(numbers(scale=100.0)), atol=1e-4)


def test_layer_norm_forgets_a_large_mean():
    np.testing.assert_allclose(build("layernorm")(numbers(shift=1000.0)), build("layernorm")(numbers()), atol=1e-2)


@pytest.mark.parametrize("name", FLAX)
def test_statistics_of_bfloat16_are_float32(name):
    x = numbers(shift=3.0).astype(jnp.bfloat16)
    out = build(name, dtype=jnp.bfloat16)(x)
    assert out.dtype == jnp.bfloat16
    exact = build(name)(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.float32(out), np.float32(exact))


@pytest.mark.parametrize("name", FLAX)
def test_a_constant_token_stays_finite(name):
    grads = jax.grad(lambda x: jnp.sum(build(name)(x)))(jnp.zeros((1, 1, 8)))
    assert np.isfinite(grads).all()


def group_norm(x, scale, bias, groups=4, epsilon=1e-6):
    """The definition, in float64: one mean and one variance for all positions and channels of a group."""
    split = np.float64(x).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, variance = split.mean(axis=(1, 3), keepdims=True), split.var(axis=(1, 3), keepdims=True)
    return ((split - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * scale + bias


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 8), (2, 3, 5, 8)])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_group_norm_is_its_definition(shape, epsilon):
    norm = norms.GroupNorm(8, groups=4, epsilon=epsilon, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = jnp.linspace(0.5, 2.0, 8), jnp.linspace(-1.0, 1.0, 8)
    x = np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float32)
    expected = group_norm(x, np.linspace(0.5, 2.0, 8), np.linspace(-1.0, 1.0, 8), epsilon=epsilon)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=1e-5)


def test_the_gradient_of_group_norm_is_that_of_flax():
    ours, theirs = norms.GroupNorm(8, groups=4, rngs=nnx.Rngs(0)), nnx.GroupNorm(8, 4, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(1.0, 1.0, (2, 3, 5, 8)), jnp.float32)
    gradients = [jax.grad(lambda x, norm=norm: jnp.sum(jnp.sin(norm(x))))(x) for norm in (ours, theirs)]
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_group_norm_forgets_a_large_mean_and_survives_a_constant_image():
    norm = norms.GroupNorm(8, groups=4, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float32)
    np.testing.assert_allclose(norm(jnp.asarray(x + 1000.0)), norm(jnp.asarray(x)), atol=1e-2)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(norm(x)))(jnp.zeros((1, 4, 8)))).all()


def test_statistics_of_a_bfloat16_group_norm_are_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (2, 64, 8)), jnp.bfloat16)
    out = norms.GroupNorm(8, groups=4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x)
    exact = norms.GroupNorm(8, groups=4, rngs=nnx.Rngs(0))(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.float32(out), np.float32(exact))


def test_groups_must_divide_the_channels():
    with pytest.raises(types.InputError, match="70 channels and 32 groups leave 6. Take 64 channels"):
        norms.GroupNorm(70, rngs=nnx.Rngs(0))
