"""Colour jitter is torchvision's on Pillow images: Pillow's arithmetic, uniform draws, a random order."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from transformer_jax import types
from transformer_jax.data import colour, ops, order, resampling

from . import fakes

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def _image():
    image = np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)
    image[:9, :9] = (250, 3, 77)
    return image


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_is_pillows(name, channels, opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(resampling, "opencv", lambda: None)
    image = _image()[..., :channels]
    pillow = Image.fromarray(image if channels == 3 else image[..., 0])
    for factor in (0.0, 0.3, 0.62, 1.0, 1.37, 1.8, 3.0):
        theirs = np.asarray(ENHANCERS[name](pillow).enhance(factor)).reshape(image.shape)
        assert np.array_equal(getattr(colour, name)(image, factor), theirs)


def test_a_turned_hue_takes_red_to_green_to_blue_and_leaves_grey_alone():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    green, blue = colour.turn_hue(red, 1 / 3), colour.turn_hue(red, -1 / 3)
    assert np.argmax(green[0, 0]) == 1 and green[0, 0, 1] == 255 and green[0, 0].min() < 4
    assert np.argmax(blue[0, 0]) == 2 and blue[0, 0, 2] == 255 and blue[0, 0].min() < 8
    grey = np.full((2, 2, 3), 99, np.uint8)
    assert np.array_equal(colour.turn_hue(grey, 0.4), grey)
    assert np.array_equal(colour.turn_hue(grey[..., :1], 0.4), grey[..., :1])


def _recorded(monkeypatch, op, count):
    calls = []
    for name in (*ENHANCERS, "turn_hue"):
        monkeypatch.setattr(colour, name, lambda image, factor, name=name: calls.append((name, factor)) or image)
    image = np.zeros((2, 2, 3), np.uint8)
    for number in range(count):
        op.apply(image, order.generator(0, 0, number))
    return calls


def test_factors_are_uniform_around_one_and_the_order_is_random(monkeypatch):
    calls = _recorded(monkeypatch, ops.OPS["colour_jitter"](0.4, 0.2, 1.5, 0.1), 2400)
    bounds = {"brightness": (0.6, 1.4), "contrast": (0.8, 1.2), "saturation": (0, 2.5), "turn_hue": (-0.1, 0.1)}
    for name, (low, high) in bounds.items():
        factors = np.array([factor for which, factor in calls if which == name])
        assert len(factors) == 2400 and low <= factors.min() and factors.max() <= high
        assert np.allclose(np.quantile((factors - low) / (high - low), [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    orders = [tuple(name for name, _ in calls[i : i + 4]) for i in range(0, len(calls), 4)]
    counts = [orders.count(one) for one in itertools.permutations(bounds)]
    assert min(counts) > 60 and max(counts) < 145 and sum(counts) == 2400


def test_a_strength_of_zero_changes_nothing(monkeypatch):
    picture = fakes.picture()
    still = ops.OPS["colour_jitter"](0, 0, 0, 0)
    assert np.array_equal(still.apply(picture, order.generator(0, 0, 0)), picture)
    calls = _recorded(monkeypatch, ops.OPS["colour_jitter"](0, 0.4, 0), 5)
    assert {name for name, _ in calls} == {"contrast"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("colour_jitter(-0.1)", "are not negative"), ("colour_jitter(hue=0.6)", r"hue lies in 0..0.5")],
)
def test_a_strength_out_of_range_is_an_error(text, message):
    with pytest.raises(types.InputError, match=message):
        ops.parse(text)
