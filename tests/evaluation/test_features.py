"""Features of exactly the examples, in order."""

import jax
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.evaluation import features, fewshot, knn, linear

from . import fakes


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 1), (16, 8), (32, 2), (104, 8)])
def test_one_row_an_example_whatever_the_batches(batch_size, devices):
    image = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32)
    label = np.arange(101, dtype=np.int32)
    factor = jax.device_put(fakes.FACTOR, fakes.sharding(devices))
    with jax.transfer_guard("disallow"):
        found = features.extract(fakes.predict, factor, fakes.Split(image, label, batch_size), fakes.put(devices))
    np.testing.assert_array_equal(found.features, image)
    np.testing.assert_array_equal(found.labels, label)


def test_it_stops_between_batches():
    split = fakes.Split(np.zeros((50, 2), np.float32), np.zeros(50, np.int32), 8)
    found = features.extract(fakes.predict, fakes.FACTOR, split, fakes.put(1), stop=lambda: split.started >= 2)
    assert found is None and split.started == 2


JUDGES = {
    "knn": (knn.Neighbours, {"k": (1,)}),
    "fewshot": (fewshot.FewShot, {"shots": (1,)}),
    "probe": (linear.Linear, {}),
}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("split", "rows", "value"), [("training", [3], np.nan), ("test", [0, 7, 20], -np.inf)])
def test_features_that_are_no_numbers_are_no_accuracy(judge, split, rows, value, monkeypatch):
    """Before, each gave a number: a fit ignores what it cannot order, and a vote of NaN is for class 0."""
    monkeypatch.setattr(features, "_CHUNK", 8)
    data = {part: np.random.default_rng(0).normal(size=(21, 3)).astype(np.float32) for part in ("training", "test")}
    data[split][rows, 1] = value
    splits = [fakes.Split(image, np.arange(21, dtype=np.int32) % 2, 8) for image in data.values()]
    kind, arguments = JUDGES[judge]
    kept = []
    evaluator = kind("mine", *splits, fakes.predict, fakes.put(1), keep=kept.append, **arguments)
    message = (
        f"must be finite: {len(rows)} of 21 examples of the {split} split of 'mine'.* first is number {rows[0]}\\."
    )
    with pytest.raises(types.InputError, match=message + ".*training has diverged.*raise config.model.dtype"):
        evaluator(fakes.FACTOR)
    assert not kept
