"""Label sets as ImageNet ReaL has them: right is one of the labels, and rows without one are not judged."""

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.evaluation import multilabel

from . import fakes


def _data(n=101, classes=7):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    return logits, (rng.random((n, classes)) < 0.25).astype(np.float32)


def _evaluator(logits, label, batch_size=16, devices=1, **kwargs):
    split = fakes.Split(logits, label, batch_size)
    return multilabel.MultiLabel("real", split, fakes.predict, fakes.put(devices), **kwargs)


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 1), (16, 8), (104, 2)])
def test_it_is_the_share_of_labelled_examples_whose_prediction_is_a_label(batch_size, devices):
    logits, label = _data()
    labelled = label.any(axis=1)
    right = label[np.arange(101), logits.argmax(axis=1)] > 0
    kept = []
    found = _evaluator(logits, label, batch_size, devices, keep=kept.append)(fakes.FACTOR)
    assert 0 < labelled.sum() < 101
    assert found == {"top1": right[labelled].mean(), "examples": labelled.sum()}
    (rows,) = kept
    np.testing.assert_array_equal(rows["index"], np.arange(101))
    np.testing.assert_array_equal(rows["label"], label > 0)
    np.testing.assert_array_equal(rows["predicted"], logits.argmax(axis=1))


def test_with_one_label_each_it_is_plain_accuracy():
    logits, _ = _data()
    label = np.random.default_rng(1).integers(7, size=101)
    found = _evaluator(logits, np.eye(7, dtype=np.float32)[label])(fakes.FACTOR)
    assert found == {"top1": (logits.argmax(axis=1) == label).mean(), "examples": 101.0}


def test_logits_that_are_not_finite_are_never_right():
    logits, label = _data()
    logits[:], label[:] = np.nan, 1.0
    assert _evaluator(logits, label)(fakes.FACTOR) == {"top1": 0.0, "examples": 101.0}


def test_without_a_single_label_there_is_nothing_to_judge():
    logits, label = _data()
    with pytest.raises(types.InputError, match="none of the 101 examples of 'real' has one. Check config.evals.real"):
        _evaluator(logits, 0 * label)(fakes.FACTOR)


def test_it_stops_and_keeps_nothing():
    kept = []
    evaluator = _evaluator(*_data(), 8, keep=kept.append)
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.pipeline.started >= 3) == {} and not kept
