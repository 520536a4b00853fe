"""Top-k as scikit-learn counts it; ties and NaN cannot flatter."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from transformer_jax.metrics import classification


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 10)).astype(np.float32), rng.integers(0, 10, 200)
    ours = classification.correct(jnp.asarray(logits), jnp.asarray(labels), k=k).mean()
    assert ours == pytest.approx(sklearn_metrics.top_k_accuracy_score(labels, logits, k=k))


def test_among_equal_logits_the_first_class_wins_as_in_argmax():
    logits = jnp.zeros((3, 4))
    labels = jnp.array([0, 1, 3])
    np.testing.assert_array_equal(classification.correct(logits, labels), [True, False, False])
    np.testing.assert_array_equal(classification.correct(logits, labels, k=2), [True, True, False])


def test_a_nan_is_never_correct():
    logits = jnp.array([[jnp.nan, 1.0], [5.0, jnp.nan], [jnp.nan, jnp.nan]])
    assert not classification.correct(logits, jnp.array([0, 0, 0]), k=2).any()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_never_correct(label):
    assert not classification.correct(jnp.zeros((1, 3)), jnp.array([label]), k=3).any()


def test_k_beyond_the_classes_is_always_right():
    assert classification.correct(jnp.array([[3.0, 1.0, 2.0]]), jnp.array([1]), k=5).all()


def test_counts_leave_out_what_the_mask_drops():
    logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    counts = classification.counts(
        logits, jnp.array([0, 1, 1, 1]), ks=(1, 2), mask=jnp.array([True, True, True, False])
    )
    assert {name: int(value) for name, value in counts.items()} == {"top1": 2, "top2": 3, "count": 3}


def test_the_prediction_is_argmax_unless_a_logit_is_none():
    logits = jnp.array([[0.0, 2.0, 2.0], [jnp.nan, 1.0, 0.0], [-jnp.inf, 3.0, jnp.inf]])
    np.testing.assert_array_equal(classification.predicted(logits), [1, -1, 2])


def test_a_prediction_is_right_when_it_is_one_of_the_labels():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 6)).astype(np.float32), rng.random((300, 6)) < 0.3
    found = np.asarray(classification.among(jnp.asarray(logits), jnp.asarray(labels)))
    np.testing.assert_array_equal(found, [row[column] for row, column in zip(labels, logits.argmax(1), strict=True)])
    assert not found[~labels.any(axis=1)].any() and 0.1 < found.mean() < 0.5
    np.testing.assert_array_equal(classification.among(jnp.asarray(logits), jnp.asarray(labels, jnp.float32)), found)
    nothing = jnp.full((1, 3), jnp.nan)
    assert not classification.among(nothing, jnp.ones((1, 3), bool)).any()
