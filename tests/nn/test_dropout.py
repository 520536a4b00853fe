"""Noise of training: its statistics, and that evaluation is free of it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transformer_jax.nn import dropout


def test_dropout_keeps_the_mean_and_drops_the_asked_share():
    layer = dropout.Dropout(0.3, rngs=nnx.Rngs(dropout=0))
    out = np.asarray(layer(jnp.ones((100, 1000))))
    assert abs((out == 0.0).mean() - 0.3) < 0.01
    assert abs(out.mean() - 1.0) < 0.01
    np.testing.assert_allclose(out[out != 0.0], 1.0 / 0.7, rtol=1e-6)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    layer = dropout.StochasticDepth(rngs=nnx.Rngs(dropout=0))
    out = np.asarray(layer(jnp.ones((4000, 2, 3)), 0.25))
    assert (out.min(axis=(1, 2)) == out.max(axis=(1, 2))).all()
    assert abs((out[:, 0, 0] == 0.0).mean() - 0.25) < 0.03
    assert abs(out.mean() - 1.0) < 0.04


def test_two_calls_draw_differently_and_evaluation_does_not_draw():
    layer, x = dropout.StochasticDepth(rngs=nnx.Rngs(dropout=0)), jnp.ones((64, 1))
    assert (layer(x, 0.5) != layer(x, 0.5)).any()
    still = nnx.view(layer, deterministic=True)
    np.testing.assert_array_equal(still(x, 0.5), x)


def test_a_rate_of_zero_leaves_no_trace():
    layer = dropout.StochasticDepth(rngs=nnx.Rngs(dropout=0))
    assert not jax.make_jaxpr(lambda x: layer(x, 0.0))(jnp.ones((2, 2))).jaxpr.eqns
