"""Position embeddings on another grid (promise 7)."""

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.ndimage

from transformer_jax import types
from transformer_jax.transfer import surgery

GRIDS = [
    ((14, 14), (24, 24)),  # 224 to 384 at 16
    ((16, 16), (37, 37)),  # 224 to 518 at 14
    ((24, 24), (7, 7)),
    ((14, 14), (10, 16)),
    ((10, 16), (7, 3)),
    ((4, 6), (1, 9)),
    ((1, 3), (2, 2)),
]


def _position(grid, prefix=0, width=5):
    rows = prefix + grid[0] * grid[1]
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_align_corners_is_scipys_zoom_and_prefix_tokens_stay(source, target, prefix):
    position = _position(source, prefix)
    resized = surgery.resize_position(position, source, target, prefix=prefix)
    zoom = (target[0] / source[0], target[1] / source[1], 1)
    expected = scipy.ndimage.zoom(position[prefix:].reshape(*source, -1), zoom, order=1)
    np.testing.assert_allclose(resized[prefix:].reshape(expected.shape), expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(resized[:prefix], position[:prefix])
    assert resized.dtype == position.dtype


@pytest.mark.parametrize(("method", "antialias"), [("half_pixel", False), ("half_pixel_antialias", True)])
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_half_pixel_is_jax_image_resize(source, target, method, antialias):
    position = _position(source)
    expected = jax.image.resize(position.reshape(*source, -1), (*target, 5), "bilinear", antialias=antialias)
    resized = surgery.resize_position(position, source, target, method=method)
    np.testing.assert_allclose(resized.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("method", surgery.METHODS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_same_grid_is_bit_exact(method, dtype):
    position = _position((14, 14), 1).astype(dtype)
    same = surgery.resize_position(position, (14, 14), (14, 14), prefix=1, method=method)
    assert same.tobytes() == position.tobytes()
    assert surgery.resize_position(position, (14, 14), (6, 6), prefix=1, method=method).dtype == dtype


def test_prefix_tokens_are_dropped_or_added_as_zeros():
    position = _position((3, 3), 1)
    np.testing.assert_array_equal(
        surgery.resize_position(position, (3, 3), (3, 3), prefix=1, target_prefix=0), position[1:]
    )
    more = surgery.resize_position(position, (3, 3), (3, 3), prefix=1, target_prefix=3)
    np.testing.assert_array_equal(more, np.concatenate([position[:1], np.zeros((2, 5)), position[1:]]))


def test_it_can_be_compiled():
    position = _position((4, 6), 1)
    compiled = jax.jit(lambda x: surgery.resize_position(x, (4, 6), (5, 3), prefix=1, target_prefix=2))
    expected = surgery.resize_position(position, (4, 6), (5, 3), prefix=1, target_prefix=2)
    np.testing.assert_allclose(compiled(position), expected, atol=1e-6)


def test_rows_that_are_not_the_grid_are_an_error():
    with pytest.raises(types.InputError, match=r"26 rows are not 1 \+ 5 x 6"):
        surgery.resize_position(_position((5, 5), 1), (5, 6), (7, 7), prefix=1)
    with pytest.raises(types.InputError, match=r"161 rows are not 1 \+ 12 x 12. Name its grid"):
        surgery.grid_of(161, prefix=1)
    assert surgery.grid_of(197, prefix=1) == (14, 14)
    assert surgery.grid_of(161, prefix=1, grid=(10, 16)) == (10, 16)


def test_an_unknown_method_lists_the_known():
    with pytest.raises(types.InputError, match="one of align_corners, half_pixel, half_pixel_antialias, not 'cubic'"):
        surgery.resize_position(_position((2, 2)), (2, 2), (3, 3), method="cubic")


@pytest.mark.parametrize(("source", "target"), [((16, 16), (24, 24)), ((8, 8), (8, 12)), ((4, 6), (9, 7))])
def test_a_kernel_for_larger_patches_sees_in_resized_patches_what_it_saw_before(source, target):
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(*source, 3, 5)), rng.normal(size=(*source, 3))
    resized = jax.image.resize(patch, (*target, 3), "bilinear", antialias=False)
    found = np.tensordot(np.asarray(resized, np.float64), surgery.resize_patch(kernel, target), axes=3)
    np.testing.assert_allclose(found, np.tensordot(patch, kernel, axes=3), atol=1e-4)  # jax resizes in float32


def test_a_kernel_for_smaller_patches_is_the_nearest():
    kernel = np.random.default_rng(0).normal(size=(8, 8, 1, 4)).astype(np.float32)
    rows = surgery.matrix("half_pixel", 8, 4)
    resize = np.kron(rows, rows)
    nearest = np.linalg.lstsq(resize.T, kernel.reshape(64, 4).astype(np.float64))[0]  # of any kernel, over white noise
    small = surgery.resize_patch(kernel, (4, 4))
    np.testing.assert_allclose(small.reshape(16, 4), nearest, atol=1e-6)
    assert small.dtype == np.float32
    np.testing.assert_allclose(surgery.resize_patch(kernel, (8, 8)), kernel, atol=1e-6)
