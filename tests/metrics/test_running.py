"""A mean does not depend on how its numbers were grouped."""

import fractions
import math

import numpy as np
import pytest

from transformer_jax.metrics import running

NUMBERS = np.random.default_rng(0).normal(size=101).astype(np.float32) * np.logspace(-12, 12, 101, dtype=np.float32)


def mean_of(parts):
    mean = running.Mean()
    for part in parts:
        mean.add(part)
    return mean


def test_the_mean_is_the_exact_one_rounded_once():
    exact = sum(map(fractions.Fraction, NUMBERS.tolist())) / 101
    assert mean_of([NUMBERS]).value == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.parametrize("batch", [1, 8, 16, 32, 101])
def test_batches_padding_and_order_do_not_change_a_bit(batch):
    whole = mean_of([NUMBERS]).value
    mean = running.Mean()
    for start in range(0, 101, batch):
        part = NUMBERS[::-1][start : start + batch]
        padding = batch - len(part)
        mean.add(np.pad(part, (0, padding), constant_values=np.nan), mask=np.arange(batch) < len(part))
    assert (mean.value, mean.count) == (whole, 101)


def test_merging_is_adding():
    left, right = mean_of([NUMBERS[:40]]), mean_of([NUMBERS[40:]])
    left.merge(right)
    assert (left.value, left.count) == (mean_of([NUMBERS]).value, 101)


def test_unequal_batches_are_weighed_by_their_examples():
    mean = running.Mean()
    mean.add(np.ones(3))
    mean.add(np.zeros(1))
    mean.add_total(4.0, 4)
    assert mean.value == 7 / 8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_number_that_is_not_finite_shows(bad):
    mean = mean_of([[1.0, bad], [2.0]])
    other = mean_of([[1.0]])
    other.merge(mean)
    assert math.isnan(mean.value) and math.isnan(other.value) and other.count == 4


def test_the_mean_of_nothing_is_nan():
    assert math.isnan(running.Mean().value)


def test_means_go_by_name():
    means, others = running.Means(), running.Means()
    means.add({"loss": [1.0, 2.0], "top1": [True, False]}, mask=[True, True])
    others.add({"loss": [6.0], "top1": [True]})
    means.merge(others)
    assert means.values() == {"loss": 3.0, "top1": pytest.approx(2 / 3)}
