"""The ridge probe equals NumPy, is seeded, and notices shuffled labels (promise 24)."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.evaluation import features, fewshot, ridge

from . import fakes

L2 = (1.0, 2.0**10, 2.0**20)


def _clusters(n, width, classes, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(n) % classes
    found = centres[labels] * 3 + 5 + spread * rng.normal(size=(n, width))
    return features.Features(found.astype(np.float32), labels.astype(np.int32))


def _by_hand(train, l2, classes):
    """The weights by NumPy: the normal equations, and least squares on rows extended by sqrt(l2) I."""
    x = train.features.astype(np.float64)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-5)
    x = np.concatenate([x, np.full((len(x), 1), 100.0)], axis=1)
    y = np.where(np.arange(classes) == train.labels[:, None], 1.0, -1.0)
    size = x.shape[1]
    solved = np.linalg.solve(x.T @ x + l2 * np.eye(size), x.T @ y)
    extended = np.concatenate([x, np.sqrt(l2) * np.eye(size)])
    least = np.linalg.lstsq(extended, np.concatenate([y, np.zeros((size, classes))]), rcond=None)[0]
    return solved, least


@pytest.mark.parametrize(
    ("n", "width"), [(60, 12), (12, 60), (30, 30), (31, 30)], ids=["primal", "dual", "n=d", "n=d+1"]
)
@pytest.mark.parametrize("l2", L2)
def test_the_weights_are_numpys(n, width, l2):
    train = _clusters(n, width, 3)
    solved, least = _by_hand(train, l2, 3)
    weights = ridge.Ridge(*train, classes=3).weights(l2)
    np.testing.assert_allclose(weights, solved, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weights, least, rtol=1e-6, atol=1e-9)


def test_chunks_and_absent_classes_change_nothing(monkeypatch):
    monkeypatch.setattr(ridge, "_CHUNK", 7)
    train = _clusters(60, 5, 3)
    train = features.Features(train.features, train.labels * 2)  # of five classes, 1 and 3 do not occur
    np.testing.assert_allclose(ridge.Ridge(*train, classes=5).weights(8.0), _by_hand(train, 8.0, 5)[0], atol=1e-12)


def test_a_constant_feature_is_harmless():
    train = _clusters(40, 6, 2)
    train.features[:, 2] = 7.0
    assert np.isfinite(ridge.Ridge(*train, classes=2).weights(1.0)).all()


def test_the_accuracy_is_that_of_the_highest_score():
    train, test = _clusters(60, 5, 4, spread=6.0), _clusters(500, 5, 4, spread=6.0, seed=1)
    mean, std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-5
    rows = np.concatenate([(test.features - mean) / std, np.full((500, 1), 100.0)], axis=1)
    expected = [((rows @ _by_hand(train, l2, 4)[0]).argmax(axis=1) == test.labels).mean() for l2 in L2]
    assert fewshot.accuracy(train, test, shots=None, l2=L2) == pytest.approx(expected, abs=0.004)
    assert 0.3 < expected[0] < 0.9


def test_shots_are_seeded_balanced_and_nested():
    labels = np.random.default_rng(0).permutation(np.arange(90) % 3)
    five, same, other = (fewshot.pick(labels, shots=5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(five, same)
    assert set(five) != set(other)
    assert np.bincount(labels[five]).tolist() == [5, 5, 5]
    assert set(fewshot.pick(labels, shots=1, seed=0)) < set(five)


def test_the_picks_are_big_visions():
    labels = np.random.default_rng(0).integers(5, size=60)
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)  # evaluators/fewshot_lsr.py: a permutation of each class in turn, cut
        theirs = np.concatenate([rng.permutation(np.where(labels == label)[0])[:5] for label in range(5)])
        np.testing.assert_array_equal(fewshot.pick(labels, shots=5, seed=seed), theirs)


def test_a_class_with_fewer_examples_gives_all_it_has_and_is_told_of(caplog):
    labels = np.array([0] * 9 + [1] * 9 + [2, 2])
    assert np.bincount(labels[fewshot.pick(labels, shots=5, seed=0)]).tolist() == [5, 5, 2]
    train, test = _clusters(90, 8, 3), _clusters(60, 8, 3, seed=1)
    few = np.flatnonzero((train.labels != 2) | (np.arange(90) < 9))
    train = features.Features(train.features[few], train.labels[few])
    assert _evaluator(train, test, shots=(5,))(fakes.FACTOR)["5shot"] > 0.5
    assert "1 classes have fewer than 5 examples (class 2 has 3)" in caplog.text


def test_more_shots_than_any_class_has_are_an_error():
    with pytest.raises(types.InputError, match="10 shots need a class with 10 examples: the largest has 9"):
        fewshot.pick(np.array([0] * 9 + [1] * 9 + [2]), shots=10, seed=0)


def _evaluator(train, test, **kwargs):
    splits = [fakes.Split(*split, 16) for split in (train, test)]
    return fewshot.FewShot("fewshot", *splits, fakes.predict, fakes.put(2), **kwargs)


def test_separable_features_are_learnt_from_few_shots(caplog):
    evaluator = _evaluator(_clusters(101, 16, 4), _clusters(203, 16, 4, seed=1), shots=(1, 5))
    metrics = evaluator(fakes.FACTOR)
    assert set(metrics) == {"1shot", "5shot"}
    assert metrics["5shot"] == 1.0 and metrics["1shot"] > 0.9
    assert not caplog.records


def test_the_defaults_are_those_of_the_published_numbers():
    evaluator = _evaluator(_clusters(60, 8, 4), _clusters(60, 8, 4))
    assert (evaluator.shots, evaluator.seeds, evaluator.l2) == ((1, 5, 10, 25), 3, (2.0**10,))
    assert ridge.BIAS == 100.0


def test_predictions_are_kept_for_every_number_and_seed():
    kept, test = [], _clusters(60, 8, 4, spread=9.0, seed=1)
    train = _clusters(60, 8, 4, spread=9.0)
    metrics = _evaluator(train, test, shots=(1, 5), seeds=2, keep=kept.append)(fakes.FACTOR)
    (rows,) = kept
    assert set(rows) == {"label", *(f"predicted_{shots}shot_seed{seed}" for shots in (1, 5) for seed in (0, 1))}
    np.testing.assert_array_equal(rows["label"], test.labels)
    for shots in (1, 5):
        each = [(rows[f"predicted_{shots}shot_seed{seed}"] == test.labels).mean() for seed in (0, 1)]
        assert metrics[f"{shots}shot"] == pytest.approx(np.mean(each), abs=1e-15)
        assert each == [fewshot.accuracy(train, test, shots=shots, seed=seed)[0] for seed in (0, 1)]


def test_every_penalty_is_reported():
    evaluator = _evaluator(_clusters(60, 8, 4), _clusters(60, 8, 4, seed=1), shots=(5,), l2=(1.0, 1024.0), seeds=2)
    assert set(evaluator(fakes.FACTOR)) == {"5shot_l2_1", "5shot_l2_1024"}


def test_shuffled_labels_are_warned_about(caplog):
    train, test = _clusters(100, 16, 4), _clusters(200, 16, 4, seed=1)
    rng = np.random.default_rng(3)
    train, test = (features.Features(split.features, rng.permutation(split.labels)) for split in (train, test))
    with caplog.at_level(logging.WARNING):
        _evaluator(train, test, shots=(5,))(fakes.FACTOR)
    assert "no better than the most frequent label" in caplog.text


def test_it_stops():
    evaluator = _evaluator(_clusters(60, 8, 4), _clusters(60, 8, 4), shots=(1,))
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.test.started >= 2) == {}


IMAGENET_SIZED = """
import json, resource, time
import numpy as np
from transformer_jax.evaluation import features, fewshot

rng = np.random.default_rng(0)
centres = rng.normal(size=(1000, 1024)).astype(np.float32)
splits = []
for n in (65_000, 10_000):
    labels = rng.integers(1000, size=n).astype(np.int32)
    splits.append(features.Features(centres[labels] + 4 * rng.standard_normal((n, 1024), np.float32), labels))
start = time.perf_counter()
(found,) = fewshot.accuracy(*splits, shots=None)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"accuracy": found, "seconds": seconds, "gb": peak}))
"""


@pytest.mark.slow
def test_imagenet_sized_features_take_less_than_a_minute_and_3_gb():
    # In a process of its own, for the high-water mark of this one is that of all tests before.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    command = [sys.executable, "-c", IMAGENET_SIZED]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300, env={**os.environ, **threads})
    found = json.loads(done.stdout)
    assert found["gb"] < 3 and found["seconds"] < 60, found
    assert found["accuracy"] > 0.9
