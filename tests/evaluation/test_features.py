"""Features of exactly the examples, in order."""

import jax
import numpy as np
import pytest

from transformer_jax.evaluation import features

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
