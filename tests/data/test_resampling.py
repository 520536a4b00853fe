"""Resizing means one thing whatever is installed."""

import numpy as np
import pytest
import scipy.ndimage

from transformer_jax.data import resampling

from . import fakes

SIZES = [
    ((8, 8), (24, 24)),
    ((37, 53), (20, 31)),
    ((5, 7), (5, 14)),
    ((1, 1), (3, 2)),
    ((40, 30), (1, 1)),
    ((9, 4), (8, 9)),
]


def _check_cut_off(pixels, exact):
    assert (pixels < exact + 1.1e-3).all() and (pixels > exact - 1 - 1e-4).all()


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_interpolates_between_half_pixel_centres(old, new):
    image = np.random.default_rng(1).integers(0, 256, (*old, 3), np.uint8)
    rows, columns = ((np.arange(n) + 0.5) * (m / n) - 0.5 for n, m in zip(new, old, strict=True))
    grid = np.meshgrid(rows, columns, indexing="ij")
    exact = np.stack(
        [scipy.ndimage.map_coordinates(image[..., c].astype(float), grid, order=1, mode="nearest") for c in range(3)],
        -1,
    )
    _check_cut_off(resampling.resize(image, *new), exact)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_area_is_the_mean_over_the_new_pixel_cut_off(old, new):
    image = np.random.default_rng(2).integers(0, 256, (*old, 3), np.uint8)
    fine = image.repeat(new[0], 0).repeat(new[1], 1).astype(float)
    exact = fine.reshape(new[0], old[0], new[1], old[1], 3).mean((1, 3))
    _check_cut_off(resampling.resize(image, *new, "area"), exact)


def test_nearest_takes_the_pixel_under_the_centre():
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
    assert resampling.resize(image, 2, 8, "nearest")[1, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resampling.resize(image, 1, 2, "nearest")[0, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize("method", resampling.METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_method_keeps_a_flat_image_flat(method, channels):
    image = np.full((13, 21, channels), 77, np.uint8)
    for size in ((5, 8), (26, 50)):
        resized = resampling.resize(image, *size, method)
        assert resized.shape == (*size, channels) and resized.dtype == np.uint8 and np.all(resized == 77)


@pytest.mark.parametrize("method", [method for method in resampling.METHODS if "_" in method])
def test_the_antialiased_methods_agree_on_a_smooth_picture(method):
    picture = fakes.picture(120, 160)
    other = resampling.resize(picture, 30, 40, "area").astype(int)
    assert np.abs(resampling.resize(picture, 30, 40, method) - other).max() < 12


@pytest.mark.parametrize(
    ("ours", "theirs"), [("bilinear_antialias", "pillow_bilinear"), ("bicubic_antialias", "pillow_bicubic")]
)
def test_the_antialiased_filters_are_pillows_but_for_its_rounding(ours, theirs):
    image = fakes.picture(41, 67)
    for size in ((20, 31), (50, 90)):
        difference = resampling.resize(image, *size, theirs).astype(int) - resampling.resize(image, *size, ours)
        assert np.abs(difference).max() <= 2 and 0.2 < difference.mean() < 0.8


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mirrored_image_is_the_same_with_and_without_opencv(channels, monkeypatch):
    picture = fakes.picture(5, 7, channels)[1:]
    assert np.array_equal(resampling.mirror(picture), picture[:, ::-1])
    monkeypatch.setattr(resampling, "opencv", lambda: None)
    assert np.array_equal(resampling.mirror(picture), picture[:, ::-1])
