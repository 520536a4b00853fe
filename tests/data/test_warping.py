"""Affine maps, bilinear and nearest."""

import numpy as np
import scipy.ndimage

from transformer_jax.data import resampling, warping

from . import fakes


def test_a_warp_by_the_identity_changes_nothing_and_by_whole_pixels_shifts():
    images = np.stack([fakes.picture(9, 12, 2, seed=i) for i in range(3)])
    identity = np.tile(np.eye(2, 3), (3, 1, 1))
    assert np.array_equal(warping.warp(images, identity), images)
    shifted = identity + np.array([[0, 0, 2], [0, 0, -1]])
    moved = warping.warp(images, shifted, fill=9)
    assert np.array_equal(moved[:, 1:, :-2], images[:, :-1, 2:])
    assert np.all(moved[:, 0] == 9) and np.all(moved[:, :, -2:] == 9)


def test_a_warp_equals_scipys_and_does_not_depend_on_the_batch():
    images = np.stack([fakes.picture(24, 20, 1, seed=i) for i in range(70)])
    angles = np.linspace(-0.5, 0.5, 70)
    inverse = np.zeros((70, 2, 3))
    inverse[:, 0, 0], inverse[:, 0, 1] = 1.1 * np.cos(angles), -np.sin(angles)
    inverse[:, 1, 0], inverse[:, 1, 1], inverse[:, 1, 2] = np.sin(angles), np.cos(angles), 1.3
    warped = warping.warp(images, inverse)
    assert np.array_equal(
        np.concatenate([warping.warp(i[None], m[None]) for i, m in zip(images, inverse, strict=True)]), warped
    )
    y, x = np.mgrid[:24, :20]
    for image, matrix, got in zip(images[::23], inverse[::23], warped[::23], strict=True):
        at = np.einsum("ij,jhw->ihw", matrix, np.stack([x - 9.5, y - 11.5, np.ones_like(x)]))
        padded = np.pad(image[..., 0].astype(float), 30)
        exact = scipy.ndimage.map_coordinates(padded, [at[1] + 11.5 + 30, at[0] + 9.5 + 30], order=1)
        assert np.abs(got[..., 0] - exact).max() < 0.6


def test_the_nearest_pixel_is_found_whatever_the_size_and_with_or_without_opencv(monkeypatch):
    matrix = np.array([[1, 0, 2.5], [0, 1, 0]], np.float32)
    for width in (20, 20000):
        image = np.arange(2 * width, dtype=np.int64).astype(np.uint8).reshape(2, width, 1)
        moved = warping.nearest(image, matrix, 9)
        assert np.array_equal(moved[:, :-3], image[:, 3:]) and np.all(moved[:, -3:] == 9)
    turned = np.array([[0.8, -0.6, 3], [0.6, 0.8, -1]], np.float32)
    picture = fakes.picture(13, 17)
    once = warping.nearest(picture, turned, 9)
    monkeypatch.setattr(resampling, "opencv", lambda: None)
    assert np.array_equal(warping.nearest(picture, turned, 9), once)
    half = np.array([[1, 0, -0.5], [0, 1, -0.5]], np.float32)
    assert np.array_equal(warping.nearest(picture, half, 9)[1:, 1:], picture[1:, 1:])
    assert np.all(warping.nearest(picture, half, 9)[0] == 9)
