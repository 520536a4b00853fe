import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer_jax.metrics import losses

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)) * 3, jnp.float32)
LABELS = jnp.array([0, 1, 2, 3, 0, 1])


def test_softmax_equals_numpy():
    z = LOGITS - LOGITS.max(axis=1, keepdims=True)
    expected = np.log(np.exp(z).sum(axis=1)) - z[np.arange(6), LABELS]
    np.testing.assert_allclose(losses.softmax_cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)


def test_sigmoid_equals_optax_summed_over_classes():
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, jax.nn.one_hot(LABELS, 4)).sum(axis=1)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)


def test_smoothing_spreads_mass_over_every_class():
    target = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), 0.1)
    expected = optax.softmax_cross_entropy(LOGITS, target)
    np.testing.assert_allclose(losses.softmax_cross_entropy(LOGITS, LABELS, label_smoothing=0.1), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_indices_equal_their_one_hot_rows(loss, smoothing):
    one_hot = jax.nn.one_hot(LABELS, 4)
    by_index = loss(LOGITS, LABELS, label_smoothing=smoothing)
    np.testing.assert_array_equal(by_index, loss(LOGITS, one_hot, label_smoothing=smoothing))


@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES)
def test_a_mixed_target_costs_the_mix(loss):
    one, other = jax.nn.one_hot(LABELS, 4), jax.nn.one_hot(LABELS[::-1], 4)
    mixed = loss(LOGITS, 0.3 * one + 0.7 * other)
    np.testing.assert_allclose(mixed, 0.3 * loss(LOGITS, one) + 0.7 * loss(LOGITS, other), rtol=1e-5)


@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES)
def test_bfloat16_logits_give_a_float32_loss_and_extreme_ones_a_finite_gradient(loss):
    assert loss(LOGITS.astype(jnp.bfloat16), LABELS).dtype == jnp.float32
    extreme = jnp.array([[1e4, -1e4, 0.0, 0.0]])
    gradient = jax.grad(lambda z: loss(z, jnp.array([1])).sum())(extreme)
    assert np.isfinite(gradient).all()
