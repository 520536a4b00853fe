"""The linear probe as an evaluator: held out by class, refitted to all, the test split read once."""

import numpy as np
import pytest
import scipy.special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from transformer_jax import types
from transformer_jax.evaluation import features, linear, probe

from . import fakes


def _digits():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels, labels = pixels[order].astype(np.float32), labels[order].astype(np.int32)
    return features.Features(pixels[:300], labels[:300]), features.Features(pixels[300:800], labels[300:800])


def _evaluator(train, test, **kwargs):
    splits = [fakes.Split(*split, 64) for split in (train, test)]
    return linear.Linear("probe", *splits, fakes.predict, fakes.put(2), **kwargs)


def test_the_penalty_is_picked_on_held_out_rows_and_refitted_to_all():
    train, test = _digits()
    kept = []
    metrics = _evaluator(train, test, keep=kept.append)(fakes.FACTOR)
    dev = linear.set_aside(train.labels, 0.1)
    scores = probe.fit(train.features[~dev], train.labels[~dev], train.features[dev], train.labels[dev], classes=10)
    assert metrics["l2"] == scores.l2 and metrics["examples"] == 500
    inverse = 1 / (scores.l2 * len(train.labels))
    scaling = probe.train(*train, classes=10, l2=scores.l2).scaling
    theirs = LogisticRegression(C=inverse, tol=1e-8, max_iter=10_000).fit(scaling(train.features), train.labels)
    odds = theirs.predict_proba(scaling(test.features))
    (rows,) = kept
    np.testing.assert_array_equal(rows["label"], test.labels)
    np.testing.assert_array_equal(rows["predicted"], odds.argmax(axis=1))
    np.testing.assert_allclose(rows["probability"], odds.max(axis=1), atol=1e-3)
    np.testing.assert_allclose(rows["loss"], -np.log(odds[np.arange(500), test.labels]), atol=2e-2)
    assert metrics["top1"] == (rows["predicted"] == test.labels).mean() > 0.9
    assert metrics["loss"] == pytest.approx(rows["loss"].mean(), rel=1e-6)


def test_a_share_of_every_class_is_set_aside_the_same_each_time():
    labels = np.array([0] * 40 + [1] * 10 + [2] * 2 + [3])
    aside = linear.set_aside(labels, 0.25)
    assert np.bincount(labels[aside], minlength=4).tolist() == [10, 2, 1, 0]
    np.testing.assert_array_equal(aside, linear.set_aside(labels, 0.25))
    assert np.bincount(labels[linear.set_aside(labels, 0.99)]).tolist() == [39, 9, 1]


def test_single_examples_cannot_be_set_aside():
    with pytest.raises(types.InputError, match="every class of the training split has one example only"):
        linear.set_aside(np.arange(5), 0.5)


def test_it_stops():
    evaluator = _evaluator(*_digits())
    assert evaluator(fakes.FACTOR, stop=lambda: evaluator.test.started >= 2) == {}
    evaluator, polls = _evaluator(*_digits()), []
    assert evaluator(fakes.FACTOR, stop=lambda: polls.append(0) or len(polls) > 50) == {} and len(polls) == 51


def test_probabilities_are_softmax():
    train, test = _digits()
    fit = probe.train(*train, classes=10, l2=0.1)
    odds = scipy.special.softmax(fit.logits(test.features), axis=1)
    np.testing.assert_allclose(fit.decide(*test)["probability"], odds.max(axis=1), rtol=1e-5)
