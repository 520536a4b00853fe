"""Masks: True means keep."""

import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.nn import masks


def test_causal_keeps_the_past_and_the_present():
    np.testing.assert_array_equal(masks.causal(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])


def test_causal_aligns_the_last_tokens_when_there_is_more_memory():
    np.testing.assert_array_equal(masks.causal(2, 4), [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_padding_keeps_the_first_tokens_of_each_example():
    np.testing.assert_array_equal(masks.padding(jnp.array([1, 3]), 3), [[[1, 0, 0]], [[1, 1, 1]]])


def test_combine_keeps_what_all_keep():
    both = masks.combine(masks.causal(3), None, masks.padding(jnp.array([1, 3]), 3))
    assert both.shape == (2, 1, 3, 3)
    np.testing.assert_array_equal(both[0, 0], [[1, 0, 0]] * 3)
    np.testing.assert_array_equal(both[1, 0], masks.causal(3))
    assert masks.combine(None, None) is None


def test_a_mask_of_one_axis_is_refused_with_its_shape():
    with pytest.raises(types.InputError, match=r"its shape is \(3,\). Add axes of size 1"):
        masks.expand(jnp.ones((3,), bool))
