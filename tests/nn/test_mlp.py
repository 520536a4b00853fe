"""MLPs: one shared contract, then what is special to each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from transformer_jax.nn import mlp

CONTRACT = ("plain", "gated")


def test_every_mlp_is_under_contract():
    assert set(CONTRACT) == set(mlp.MLPS)


def build(name, **options):
    return mlp.MLPS[name](8, 16, rngs=nnx.Rngs(params=0, dropout=1), **options)


def tokens(length=5):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, length, 8)), jnp.float32)


@pytest.mark.parametrize("name", CONTRACT)
def test_each_token_is_transformed_alone(name):
    layer, x = build(name), tokens()
    np.testing.assert_allclose(layer(x)[:, 2:3], layer(x[:, 2:3]), atol=1e-6)


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("use_bias", [True, False])
def test_biases_are_there_when_asked_for(name, use_bias):
    params = nnx.to_flat_state(nnx.state(build(name, use_bias=use_bias), nnx.Param))
    assert any(path[-1] == "bias" for path, _ in params) == use_bias


@pytest.mark.parametrize("name", CONTRACT)
def test_dropout_follows_both_dense_layers(name):
    layer, x = build(name, dropout=0.5), tokens(400)
    assert abs(float(jnp.mean(layer(x) == 0.0)) - 0.5) < 0.02  # after `down`
    layer.dropout_down.rate = 0.0
    inner = layer(x)
    mean = np.mean([layer(x) for _ in range(200)], axis=0)
    still = nnx.view(layer, deterministic=True)(x)
    assert float(jnp.abs(inner - still).max()) > 0.1  # after `up`
    assert np.abs(mean - still).max() < 0.5
    assert np.abs(mean - still).mean() < 0.05


def test_the_plain_mlp_is_two_matrices_around_a_gelu():
    layer, x = build("plain", activation="gelu_erf"), tokens()
    hidden = np.asarray(x) @ np.asarray(layer.up.kernel[...]) + np.asarray(layer.up.bias[...])
    hidden = hidden * 0.5 * (1.0 + special.erf(hidden / np.sqrt(2.0)))
    expected = hidden @ np.asarray(layer.down.kernel[...]) + np.asarray(layer.down.bias[...])
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_the_gate_multiplies_the_hidden_features():
    layer, x = build("gated", activation="silu"), tokens()
    gate, up = (np.asarray(x) @ np.asarray(part.kernel[...]) for part in (layer.gate, layer.up))
    expected = (gate / (1.0 + np.exp(-gate)) * up) @ np.asarray(layer.down.kernel[...])
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


def test_the_two_gelus_differ_by_what_the_approximation_costs():
    x = jnp.linspace(-4.0, 4.0, 1001)
    gap = float(jnp.abs(mlp.ACTIVATIONS["gelu_tanh"](x) - mlp.ACTIVATIONS["gelu_erf"](x)).max())
    assert 1e-4 < gap < 1e-3


@pytest.mark.parametrize("name", mlp.ACTIVATIONS)
def test_every_activation_has_a_finite_gradient_everywhere(name):
    x = jnp.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    assert np.isfinite(jax.vmap(jax.grad(mlp.ACTIVATIONS[name]))(x)).all()
