"""Preprocessing is that of the released code: the same pixels, sizes and distributions as TensorFlow's, without it."""

import importlib.util
import pathlib

import numpy as np
import pytest
import scipy.stats

from transformer_jax.data import ops, order, resampling

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, GOLDEN / f"make_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IMAGES = _script("tensorflow_images")


@pytest.fixture(scope="module")
def golden():
    with np.load(IMAGES.FILE) as file:
        return dict(file)


@pytest.mark.parametrize("method", IMAGES.METHODS)
@pytest.mark.parametrize("name", IMAGES.images())
def test_a_resized_image_is_tensorflows(name, method, golden):
    image = IMAGES.images()[name]
    for height, width in IMAGES.SIZES:
        ours = resampling.resize(image, height, width, method).astype(int)
        theirs = golden[f"{name}/{method}/{height}x{width}"]
        assert ours.shape == theirs.shape
        if method in ("nearest", "bilinear"):
            assert np.array_equal(ours, theirs)
        # Elsewhere TensorFlow's sums may fall below a whole number and be cut off to the one before.
        assert (ours - theirs).min() >= 0 and (ours - theirs).max() <= 1


def test_the_methods_differ_from_each_other(golden):
    # So that the bound of one above can fail.
    for name in IMAGES.images():
        size = "7x60" if name == "noise" else "11x16"
        found = [golden[f"{name}/{method}/{size}"].astype(int) for method in IMAGES.METHODS]
        for i, one in enumerate(found):
            assert all(np.abs(one - other).max() > 5 for other in found[:i])


def test_resize_small_rounds_the_larger_side_as_tensorflow(golden, monkeypatch):
    asked = []

    def resize(image, height, width, method):
        asked.append((height, width))
        return image

    monkeypatch.setattr(resampling, "resize", resize)
    rows = golden["smaller_sides"].tolist()
    for height, width, size, *_ in rows:
        image = np.broadcast_to(np.uint8(0), (height, width, 3))
        ops.OPS["resize_small"](size).apply(image, order.generator(0, 0, 0))
    assert asked == [(height, width) for *_, height, width in rows]


def test_the_defaults_are_those_of_the_released_code():
    assert ops.OPS["resize"](8).method == ops.OPS["inception_crop"](8).method == "bilinear"
    assert ops.OPS["resize_small"](8).method == "area"
    crop = ops.OPS["inception_crop"](8)
    assert (crop.area_min, crop.area_max, crop.aspect_min, crop.aspect_max) == (5, 100, 0.75, 1.33)


def _agreement(drawn, size, golden):
    """For every histogram, how likely two samples of one distribution differ this much or more."""
    found = {}
    for name, ours in IMAGES.histograms(drawn, *size).items():
        theirs = golden[f"boxes/{size[0]}x{size[1]}/{name}"]
        seen = ours + theirs > 0
        table = np.stack([ours[seen], theirs[seen]])
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        statistic = ((table - expected) ** 2 / expected).sum()
        found[name] = scipy.stats.chi2.sf(statistic, np.count_nonzero(seen) - 1)
    return found


def _torchvisions(height, width, rng):
    """RandomResizedCrop: area uniform, logarithm of the aspect ratio uniform, ten attempts, every corner."""
    for _ in range(10):
        area = height * width * rng.uniform(0.05, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, tall = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1), tall, wide
    return 0, 0, height, width


@pytest.mark.parametrize("size", IMAGES.BOXED)
def test_inception_boxes_have_tensorflows_distribution_and_torchvisions_have_not(size, golden):
    op, rng = ops.OPS["inception_crop"](8), np.random.default_rng(0)
    ours = np.array([op.box(*size, rng) for _ in range(IMAGES.BOXES)])
    agreement = _agreement(ours, size, golden)
    assert min(agreement.values()) > 1e-3, agreement
    other = np.array([_torchvisions(*size, rng) for _ in range(IMAGES.BOXES // 4)])
    control = _agreement(other, size, golden)
    assert max(control[name] for name in ("area", "aspect", "height")) < 1e-9, control


def test_inception_boxes_leave_out_the_last_row_and_column():
    rng = np.random.default_rng(0)
    top, left, tall, wide = np.array([ops.OPS["inception_crop"](8).box(11, 13, rng) for _ in range(3000)]).T
    assert np.max((top + tall)[tall < 11]) == 10 and np.max((left + wide)[wide < 13]) == 12
    assert np.any(tall == 11)


@pytest.mark.slow
def test_the_golden_file_of_images_is_what_tensorflow_makes(golden):
    pytest.importorskip("tensorflow", reason="only TensorFlow can make the file again")
    made = IMAGES.make()
    assert made.keys() == golden.keys()
    assert all(np.array_equal(made[name], golden[name]) for name in golden)
