"""The weighted vote equals NumPy by brute force and scikit-learn."""

import logging

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from transformer_jax import types
from transformer_jax.evaluation import features, knn

from . import fakes


def _clusters(n, classes=5, width=12, spread=3.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n).astype(np.int32)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    return features.Features((centres[labels] + spread * rng.normal(size=(n, width))).astype(np.float32), labels)


def _by_hand(train, test, k, temperature):
    """Every cosine, every vote, one example after the other, in float64."""
    known = train.features.astype(np.float64)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    found = []
    for row in test.astype(np.float64):
        cosine = known @ row / np.linalg.norm(row)
        votes = np.zeros(train.labels.max() + 1)
        for near in np.argsort(-cosine, kind="stable")[:k]:
            votes[train.labels[near]] += np.exp(cosine[near] / temperature)
        found.append(votes.argmax())
    return np.array(found)


@pytest.mark.parametrize("temperature", [0.07, 1e20])
def test_it_is_the_brute_force_of_numpy_whatever_the_chunks(temperature, monkeypatch):
    train, test = _clusters(150), _clusters(101, seed=1).features
    whole = knn.predict(train, test, k=(1, 10, 20), temperature=temperature)
    monkeypatch.setattr(knn, "_PRODUCTS", 150 * 7)
    chunked = knn.predict(train, test, k=(1, 10, 20), temperature=temperature)
    for k in (1, 10, 20):
        np.testing.assert_array_equal(whole[k], _by_hand(train, test, k, temperature))
        np.testing.assert_array_equal(chunked[k], whole[k])


@pytest.mark.parametrize(("temperature", "weights"), [(0.07, lambda d: np.exp((1 - d) / 0.07)), (1e20, "uniform")])
def test_it_is_scikit_learns_on_images(temperature, weights):
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels + np.random.default_rng(0).normal(size=pixels.shape)).astype(np.float32)
    train = features.Features(pixels[:1000], labels[:1000])
    found = knn.predict(train, pixels[1000:], k=(10, 20), temperature=temperature)
    for k in (10, 20):
        theirs = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(*train)
        np.testing.assert_array_equal(found[k], theirs.predict(pixels[1000:]))
        assert (found[k] == labels[1000:]).mean() > 0.9


def test_neighbours_are_found_by_direction_and_ties_go_to_the_first():
    known = np.array([[1, 0], [0, 5], [0, 1], [0, 0]], np.float32)
    train = features.Features(known, np.array([2, 1, 0, 0], np.int32))
    found = knn.predict(train, np.array([[9, 1], [1, 9], [0, 0]], np.float32), k=(1, 2))
    np.testing.assert_array_equal(found[1], [2, 1, 2])
    np.testing.assert_array_equal(found[2], [2, 0, 1])  # equal votes go to the lower class


def _evaluator(train, test, **kwargs):
    splits = [fakes.Split(*split, 16) for split in (train, test)]
    return knn.Neighbours("near", *splits, fakes.predict, fakes.put(2), **kwargs)


def test_every_k_is_reported_and_its_predictions_kept(caplog):
    train, test, kept = _clusters(150, spread=1.0), _clusters(101, spread=1.0, seed=1), []
    metrics = _evaluator(train, test, keep=kept.append)(fakes.FACTOR)
    (rows,) = kept
    assert set(metrics) == {"10nn", "20nn"} and set(rows) == {"label", "predicted_10nn", "predicted_20nn"}
    for name, value in metrics.items():
        assert value == (rows[f"predicted_{name}"] == test.labels).mean() > 0.8
    assert not caplog.records


def test_shuffled_labels_are_warned_about(caplog):
    train, test = _clusters(150), _clusters(101, seed=1)
    train = features.Features(train.features, np.random.default_rng(0).permutation(train.labels))
    with caplog.at_level(logging.WARNING):
        _evaluator(train, test)(fakes.FACTOR)
    assert "no better than the most frequent label" in caplog.text


def test_more_neighbours_than_examples_are_an_error():
    with pytest.raises(
        types.InputError, match="20 nearest neighbours need as many.*'near' has 15.*config.evals.near.k"
    ):
        _evaluator(_clusters(15), _clusters(30))


def test_it_stops():
    evaluator = _evaluator(_clusters(60), _clusters(60))
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.test.started >= 2) == {}
    assert knn.predict(_clusters(60), _clusters(60).features, k=(1,), stop=lambda: True) is None
