"""Random erasing fills one rectangle of the drawn size."""

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import ops, order

from . import fakes

ERASE = ops.OPS["erase"]


def _boxes(op, height, width, count=3000):
    rng = np.random.default_rng(0)
    return np.array([op.box(height, width, rng) for _ in range(count)])


def test_boxes_have_the_area_and_aspect_asked_for_and_lie_anywhere():
    boxes = _boxes(ERASE(), 224, 200)
    erased = boxes[boxes[:, 2] > 0]
    assert 0.46 < len(erased) / len(boxes) < 0.54
    top, left, height, width = erased.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height).max() <= 224 and (left + width).max() <= 200
    area, lean = height * width / (224 * 200), np.log(height / width) / np.log(1 / 0.3)
    assert 0.019 < area.min() and area.max() < 0.336 and abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.02
    assert np.abs(lean).max() < 1.05 and abs(lean.mean()) < 0.05 and abs((lean**2).mean() - 1 / 3) < 0.05
    assert top.min() == 0 and (top + height).max() == 224


def test_the_probability_is_that_of_a_filled_box():
    assert (_boxes(ERASE(0.0), 64, 64)[:, 2] == 0).all()
    assert (_boxes(ERASE(1.0), 64, 64)[:, 2] > 0).all()
    assert abs((_boxes(ERASE(0.2), 64, 64)[:, 2] > 0).mean() - 0.2) < 0.03


def test_an_image_too_small_for_any_box_stays_as_it_was():
    image = np.full((1, 9, 3), 50, np.uint8)
    assert np.array_equal(ERASE(1.0).apply(image, order.generator(0, 0, 0)), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_filling_is_noise_the_mean_or_a_constant(channels):
    image = fakes.picture(40, 44, channels)
    for number in range(5):
        top, left, height, width = ERASE(1.0).box(40, 44, order.generator(0, 0, number))
        hole = (slice(top, top + height), slice(left, left + width))
        outs = {mode: ERASE(1.0, mode=mode, fill=7).apply(image, order.generator(0, 0, number)) for mode in MODES}
        for out in outs.values():
            kept = np.ones((40, 44), bool)
            kept[hole] = False
            assert np.array_equal(out[kept], image[kept])
        assert np.all(outs["constant"][hole] == 7)
        assert np.all(outs["mean"][hole] == np.rint(image.mean((0, 1))))
        noise = outs["noise"][hole]
        assert len(np.unique(noise)) > min(30, noise.size // 4)


MODES = ("noise", "mean", "constant")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("erase(1.5)", "probability lies in 0..1"),
        ("erase(0.5, 0.02, 0.33)", "per cent, not shares"),
        ("erase(0.5, 40)", "area_min <= area_max"),
        ("erase(aspect_min=0)", "aspect_min lies in 0..1"),
        ("erase(mode='pixel')", "mode is one of noise, mean, constant"),
    ],
)
def test_a_wrong_argument_is_an_error(text, message):
    with pytest.raises(types.InputError, match=message):
        ops.parse(text)
