"""The linear probe is the minimum of its objective, and its penalty comes from the held-out split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from transformer_jax import types
from transformer_jax.evaluation import probe


def _digits():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels[order].astype(np.float32), labels[order]


def test_it_is_the_logistic_regression_of_scikit_learn():
    pixels, labels = _digits()
    found = probe.train(pixels[:300], labels[:300], classes=10, l2=0.01)
    inputs = found.scaling(pixels[:300])
    theirs = LogisticRegression(C=1 / (0.01 * 300), tol=1e-10, max_iter=10_000).fit(inputs, labels[:300])
    np.testing.assert_allclose(found.kernel, theirs.coef_.T, atol=2e-3)
    logits = found.logits(pixels[300:])
    np.testing.assert_array_equal(logits.argmax(axis=1), theirs.predict(found.scaling(pixels[300:])))


def test_the_penalty_of_the_best_held_out_accuracy_is_picked():
    pixels, labels = _digits()
    fit = probe.fit(pixels[:200], labels[:200], pixels[200:600], labels[200:600], classes=10)
    assert set(fit.scores) == set(probe.L2)
    assert fit.scores[fit.l2]["top1"] == max(score["top1"] for score in fit.scores.values())
    assert fit.probe.measure(pixels[200:600], labels[200:600]) == fit.scores[fit.l2]
    assert fit.probe.measure(pixels[600:], labels[600:])["top1"] > 0.9


def test_the_start_does_not_matter():
    pixels, labels = _digits()
    cold = probe.train(pixels[:200], labels[:200], classes=10, l2=0.1)
    warm = probe.train(
        pixels[:200],
        labels[:200],
        classes=10,
        l2=0.1,
        start=probe.train(pixels[:200], labels[:200], classes=10, l2=10.0),
    )
    np.testing.assert_allclose(warm.kernel, cold.kernel, atol=1e-4)


def test_constant_features_and_absent_classes_are_harmless():
    rows = np.array([[0, 1, 5], [1, 0, 5], [0, 2, 5], [2, 0, 5]], np.float32)
    found = probe.train(rows, np.array([0, 2, 0, 2]), classes=4, l2=1e-3)
    assert found.measure(rows, np.array([0, 2, 0, 2]))["top1"] == 1.0


def test_labels_beyond_the_classes_are_an_error():
    with pytest.raises(types.InputError, match="needs labels from 0 to 2: it got 0 to 3"):
        probe.train(np.zeros((2, 3), np.float32), np.array([0, 3]), classes=3, l2=1.0)
