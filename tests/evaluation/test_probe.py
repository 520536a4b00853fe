"""The linear probe is the minimum of its objective, and its penalty comes from the held-out split."""

import tracemalloc

import numpy as np
import pytest
import scipy.special
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


def _noise(rows, embed, classes):
    rng = np.random.default_rng(0)
    return rng.normal(3, 2, (rows, embed)).astype(np.float32), np.arange(rows) % classes


@pytest.mark.parametrize("kept", [0, 1 << 20], ids=["standardised in every iteration", "once"])
def test_chunks_change_no_number(kept, monkeypatch):
    inputs, labels = _noise(101, 6, 5)
    whole = probe.train(inputs, labels, classes=5, l2=0.01)
    rows = whole.decide(inputs, labels)
    monkeypatch.setattr(probe, "_NUMBERS", 7 * 8)  # eight examples at a time
    monkeypatch.setattr(probe, "_KEPT", kept)
    chunked = probe.train(inputs, labels, classes=5, l2=0.01)
    np.testing.assert_allclose(chunked.kernel, whole.kernel, rtol=0, atol=1e-10)
    np.testing.assert_allclose(chunked.bias, whole.bias, rtol=0, atol=1e-10)
    for name, each in whole.decide(inputs, labels).items():
        np.testing.assert_allclose(each, rows[name], rtol=1e-6)
        assert each.dtype == rows[name].dtype


@pytest.mark.parametrize("numbers", [7 * 8, 1 << 20])
def test_loss_and_gradient_are_those_of_all_logits_at_a_time(numbers, monkeypatch):
    monkeypatch.setattr(probe, "_NUMBERS", numbers)
    features, labels = _noise(101, 6, 5)
    scaling = probe.train(features, labels, classes=5, l2=1.0, iterations=1).scaling
    flat = np.random.default_rng(1).normal(0, 9, (7, 5))  # logits beyond what exp takes in float32
    inputs, rows = scaling(features), np.arange(101)
    logits = inputs @ flat[:-1] + flat[-1]
    loss = (scipy.special.logsumexp(logits, axis=1) - logits[rows, labels]).mean() + 0.05 * np.square(flat[:-1]).sum()
    error = (scipy.special.softmax(logits, axis=1) - np.eye(5)[labels]) / 101
    gradient = np.concatenate([inputs.T @ error + 0.1 * flat[:-1], error.sum(axis=0, keepdims=True)])
    objective = probe._Objective(scaling, features, labels, classes=5, l2=0.1)
    found, slope = objective(flat.ravel())
    assert found == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(slope, gradient.ravel(), rtol=0, atol=1e-10)


def test_logits_of_all_examples_are_never_in_memory():
    features, labels = _noise(20_000, 4, 500)
    tracemalloc.start()
    try:
        found = probe.train(features, labels, classes=500, l2=1.0, iterations=0)
        found.decide(features, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * 20_000 * 500 * 8  # it was six times all of them


@pytest.mark.parametrize("iterations", [1, 37, 1000])
def test_every_fit_asks_as_often_whether_to_stop_however_many_iterations_it_takes(iterations):
    """The processes of a run count how often they were asked, and stop where none is past it."""
    pixels, labels = _digits()
    asked, options = [], dict(classes=10, iterations=iterations)

    def stop_at(last):
        asked.clear()
        return lambda: asked.append(0) or len(asked) == last

    probe.train(pixels[:50], labels[:50], l2=10.0, stop=stop_at(None), **options)
    assert len(asked) == probe._POLLS
    for last in (1, probe._POLLS + 3):
        with pytest.raises(probe.Stopped):
            probe.fit(
                pixels[:50], labels[:50], pixels[50:90], labels[50:90], l2=(1.0, 10.0), stop=stop_at(last), **options
            )
        assert len(asked) == last
