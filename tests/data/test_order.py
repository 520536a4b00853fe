"""The permutation and the random numbers are fixed functions: golden values must never change."""

import numpy as np
import pytest

from transformer_jax.data import order


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 101, 1437, 70000])
def test_an_epoch_is_a_permutation(length):
    for key in (0, 1):
        assert np.array_equal(np.sort(order.permuted(np.arange(length), length, key)), np.arange(length))


def test_every_example_is_as_likely_at_every_place():
    counts = np.zeros((11, 11))
    for key in range(1000):
        counts[np.arange(11), order.permuted(np.arange(11), 11, order.mix(key))] += 1
    expected = 1000 / 11
    assert ((counts - expected) ** 2 / expected).sum() / 100 < 1.5  # 3.5 standard deviations


def test_neighbours_are_scattered():
    shuffled = order.permuted(np.arange(50000), 50000, 3)
    assert abs(np.abs(np.diff(shuffled)).mean() / 50000 - 1 / 3) < 0.01
    assert abs(np.corrcoef(np.arange(50000), shuffled)[0, 1]) < 0.02


def test_a_position_is_an_epoch_and_an_index():
    sequence = order.Order(10, seed=1)
    draws = sequence(np.arange(30))
    assert [epoch for epoch, _ in draws] == [0] * 10 + [1] * 10 + [2] * 10
    assert [sequence(np.array([p]))[0] for p in range(30)] == draws
    assert order.Order(10, seed=1, shuffle=False)(np.array([0, 13, 29])) == [(0, 0), (1, 3), (2, 9)]


def test_streams_of_random_numbers_are_apart_and_reproducible():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    first = [order.generator(*key).random() for key in keys]
    assert len(set(first)) == 4 and first == [order.generator(*key).random() for key in keys]
    pooled = order.generators(0, [(0, 0), (1, 0), (0, 1)])
    assert [rng.random() for rng in pooled] == [first[0], first[2], first[3]]
    half = order.generators(0, [(0, 0)])[0]
    half.integers(0, 9)
    assert order.generators(0, [(0, 0)])[0].random() == first[0]


def test_the_golden_values():
    assert order.mix(1, 2, 3) == GOLDEN_MIX
    assert order.permuted(np.arange(8), 1437, 5).tolist() == GOLDEN_ORDER
    assert order.generator(7, 2, 11).random(2).tolist() == GOLDEN_RANDOM


GOLDEN_MIX = 7702586659592502839
GOLDEN_ORDER = [1178, 686, 1063, 259, 1407, 50, 609, 916]
GOLDEN_RANDOM = [0.16652246521667458, 0.6714380362238697]
