"""Losses equal their definition in NumPy, and padding rows cannot spoil them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from transformer_jax.metrics import losses

LOGITS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32) * 3
LABELS = np.array([0, 6, 3, 3, 1], np.int32)
SOFT = np.random.default_rng(1).dirichlet(np.ones(7), size=5).astype(np.float32)


def softmax_reference(logits, target):
    return -(target * special.log_softmax(logits.astype(np.float64), axis=-1)).sum(-1)


def sigmoid_reference(logits, target):
    logits = logits.astype(np.float64)
    return -(target * special.log_expit(logits) + (1 - target) * special.log_expit(-logits)).sum(-1)


REFERENCES = {"softmax": softmax_reference, "sigmoid": sigmoid_reference}
NAMES = sorted(losses.LOSSES)


def test_every_loss_has_a_reference():
    assert NAMES == sorted(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_losses_equal_their_definition(name, smoothing, soft):
    target = SOFT if soft else np.eye(7)[LABELS]
    ours = losses.LOSSES[name](jnp.asarray(LOGITS), jnp.asarray(SOFT if soft else LABELS), label_smoothing=smoothing)
    smooth = (1 - smoothing) * target + smoothing / 7
    np.testing.assert_allclose(ours, REFERENCES[name](LOGITS, smooth), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_even_from_bfloat16_logits(name):
    assert losses.LOSSES[name](jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(LABELS)).dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_large_logits_stay_finite(name):
    loss = losses.LOSSES[name](jnp.array([[1e4, -1e4]]), jnp.array([1]))
    assert np.isfinite(loss).all() and loss[0] > 1e4


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_count_nothing_and_send_back_nothing_whatever_they_hold(name):
    logits = jnp.asarray(LOGITS).at[1].set(jnp.nan).at[2].set(jnp.inf)
    labels = jnp.asarray(LABELS).at[1].set(-1)
    mask = jnp.array([True, False, False, True, True])

    def total(logits):
        return losses.LOSSES[name](logits, labels, mask=mask).sum()

    value, grad = jax.value_and_grad(total)(logits)
    np.testing.assert_allclose(value, REFERENCES[name](LOGITS, np.eye(7)[LABELS])[np.array(mask)].sum(), rtol=1e-5)
    assert np.isfinite(grad).all() and not grad[1:3].any() and grad[0].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_that_is_no_class_gives_nan(name, label):
    loss = losses.LOSSES[name](jnp.asarray(LOGITS[:2]), jnp.array([label, 0]))
    assert np.isnan(loss[0]) and np.isfinite(loss[1])


def test_the_mean_divides_by_what_the_mask_keeps():
    values = jnp.array([1.0, 2.0, jnp.nan])
    assert losses.mean(values, jnp.array([True, True, False])) == 1.5
    assert losses.mean(values, jnp.array([False, False, False])) == 0
    assert losses.mean(values[:2]) == 1.5
