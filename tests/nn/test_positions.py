"""Position tables: one shared contract, then each against its formula."""

import jax
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import positions

CONTRACT = ("learned", "sincos1d", "sincos2d", "none")


def table(name, grid=(3, 5), width=16, prefix=0):
    if name == "learned":
        return positions.learned(prefix + grid[0] * grid[1], width, rngs=nnx.Rngs(0))[...]
    return positions.fixed(name, grid, width, prefix=prefix)


def test_every_position_is_under_contract():
    assert CONTRACT == positions.POSITIONS


@pytest.mark.parametrize("name", CONTRACT)
def test_every_token_has_its_own_row(name):
    rows = table(name)
    if name == "none":
        assert rows is None
    else:
        assert rows.shape == (15, 16) and rows.dtype == np.float32
        gaps = np.abs(np.asarray(rows)[:, None] - np.asarray(rows)[None]).max(axis=-1)
        assert gaps[~np.eye(15, dtype=bool)].min() > 1e-3


@pytest.mark.parametrize("name", ["sincos1d", "sincos2d"])
def test_fixed_tables_leave_the_prefix_at_zero(name):
    rows = table(name, prefix=2)
    assert not rows[:2].any()
    np.testing.assert_array_equal(rows[2:], table(name))


def test_sincos1d_is_the_formula_of_the_paper():
    rows = positions.sincos1d(6, 8)
    for at in range(6):
        for i in range(4):
            angle = at / 10_000 ** (2 * i / 8)
            np.testing.assert_allclose(rows[at, [i, 4 + i]], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_sincos2d_is_the_published_one():
    rows = positions.sincos2d((2, 3), 8)
    omega = 10_000.0 ** -np.array([0.0, 1.0])
    for y in range(2):
        for x in range(3):
            expected = np.concatenate([np.sin(x * omega), np.cos(x * omega), np.sin(y * omega), np.cos(y * omega)])
            np.testing.assert_allclose(rows[3 * y + x], expected, atol=1e-6)


def test_sincos_dot_products_depend_on_the_distance_only():
    rows = positions.sincos1d(20, 32)
    products = rows @ rows.T
    for gap in (1, 5):
        diagonal = np.diagonal(products, gap)
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), atol=1e-4)


def test_learned_tables_start_small_and_differ_by_seed():
    one, two = (positions.learned(100, 64, rngs=nnx.Rngs(seed))[...] for seed in (0, 1))
    assert abs(float(one.std()) - 0.02) < 1e-3
    assert float(jax.numpy.abs(one - two).max()) > 0.01


@pytest.mark.parametrize(("name", "width"), [("sincos1d", 15), ("sincos2d", 14)])
def test_a_width_that_cannot_be_shared_out_is_refused(name, width):
    with pytest.raises(types.InputError, match=f"{name} needs a width divisible by .: it is {width}"):
        positions.fixed(name, (2, 2), width)
