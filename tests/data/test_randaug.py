"""RandAugment is big_vision's, to the bit, quirks included."""

import importlib.util
import pathlib

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import ops, order, randaug, resampling

from . import fakes

SCRIPT = pathlib.Path(__file__).parents[1] / "golden" / "make_tensorflow_augment.py"
_spec = importlib.util.spec_from_file_location("make_tensorflow_augment", SCRIPT)
AUGMENT = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(AUGMENT)


@pytest.fixture(scope="module")
def golden():
    with np.load(AUGMENT.FILE) as file:
        return dict(file)


@pytest.fixture(params=["with OpenCV", "without"])
def accelerator(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(resampling, "opencv", lambda: None)
    elif resampling.opencv() is None:
        pytest.skip("OpenCV is not installed")


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("name", [name for name in randaug.NAMES if name != "Cutout"])
def test_an_operations_pixels_are_tensorflows(name, golden):
    checked = 0
    for key, image in AUGMENT.images().items():
        for number, (case, argument) in enumerate(AUGMENT.cases()):
            if case == name:
                ours = randaug.AUGMENTATIONS[name].function(image, argument)
                assert ours.dtype == np.uint8 and np.array_equal(ours, golden[key][number]), argument
                checked += 1
    assert checked


def test_cutout_is_tensorflows(golden):
    image = AUGMENT.images()["noise"]
    for centre, theirs in zip(AUGMENT.CENTRES, golden["cutout"], strict=True):
        assert np.array_equal(randaug.cutout(image, 4, centre), theirs)


def test_contrast_takes_the_number_of_pixels_for_the_mean(golden):
    ramp = AUGMENT.ramp()
    ours = randaug.contrast(ramp, 1.9)
    assert np.array_equal(ours[0], golden["ramp"]) and np.array_equal(ours[-1], golden["ramp"])
    square = np.full((224, 224, 3), 196, np.uint8)
    assert np.array_equal(randaug.contrast(square, 1.9), square)
    assert np.all(randaug.contrast(square[:112], 1.9) == 255)


def test_every_argument_of_the_golden_cases_comes_from_a_magnitude():
    for name, row in randaug.AUGMENTATIONS.items():
        if name != "Cutout":
            ours = {row.argument(magnitude) for magnitude in AUGMENT.MAGNITUDES}
            ours |= {-value for value in ours} if row.signed else set()
            assert ours <= {argument for case, argument in AUGMENT.cases() if case == name}
        assert row.signed == (name in AUGMENT.SIGNED)


def test_the_wrapped_bytes_of_solarize_and_posterize():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    at = {magnitude: randaug.AUGMENTATIONS["Solarize"].argument(magnitude) for magnitude in (10, 15, 20)}
    assert np.array_equal(randaug.solarize(image, at[10]), 255 - image)
    assert np.array_equal(randaug.solarize(image, at[20]), 255 - image)
    assert np.array_equal(randaug.solarize(image, at[15]), np.where(image < 128, image, 255 - image))
    bits = {magnitude: randaug.AUGMENTATIONS["Posterize"].argument(magnitude) for magnitude in (0, 10, 20, 25)}
    kept = [len(np.unique(randaug.posterize(image, bits[magnitude]))) for magnitude in (0, 10, 20, 25)]
    assert kept == [2, 16, 256, 2]


@pytest.mark.usefixtures("accelerator")
def test_every_operation_takes_grey_images_and_sides_of_one_pixel():
    for shape in ((9, 7, 1), (1, 5, 3), (5, 1, 1), (2, 2, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for name, row in randaug.AUGMENTATIONS.items():
            extra = ((0, 0),) if name == "Cutout" else ()
            out = row.function(image, row.argument(10), *extra)
            assert out.shape == shape and out.dtype == np.uint8, name


def test_a_view_is_treated_like_its_copy():
    picture = fakes.picture(20, 24)[:, ::-1][2:, 3:]
    op = ops.OPS["randaug"](3, 10)
    for number in range(40):
        copy = op.apply(picture.copy(), order.generator(0, 0, number))
        assert np.array_equal(op.apply(picture, order.generator(0, 0, number)), copy)


def test_the_sixteen_are_drawn_equally_often_with_either_sign(monkeypatch):
    drawn = []

    def record(name):
        def function(image, argument, *_):
            drawn.append((name, argument > 0))
            return image

        return function

    for name, row in randaug.AUGMENTATIONS.items():
        recorded = randaug.Augmentation(record(name), row.argument, row.signed)
        monkeypatch.setitem(randaug.AUGMENTATIONS, name, recorded)
    monkeypatch.setattr(randaug, "cutout", record("Cutout"))
    image, op = np.zeros((4, 4, 3), np.uint8), ops.OPS["randaug"](2, 10)
    for number in range(4000):
        op.apply(image, order.generator(0, 0, number))
    counts = {name: sum(case == name for case, _ in drawn) for name in randaug.NAMES}
    assert len(drawn) == 8000 and len(counts) == 16
    assert all(400 < count < 600 for count in counts.values()), counts
    for name, row in randaug.AUGMENTATIONS.items():
        share = sum(positive for case, positive in drawn if case == name) / counts[name]
        assert 0.4 < share < 0.6 if row.signed else share in (0, 1)


def test_a_square_is_cut_out_around_its_centre_and_the_fill_is_128():
    black = np.zeros((6, 7, 3), np.uint8)
    centres = [randaug.cutout(black, 1, (row, column)) for row in range(6) for column in range(7)]
    assert len({out.tobytes() for out in centres}) == 42 and {*np.unique(centres)} == {0, 128}


def test_cutouts_centre_is_drawn_anywhere_in_the_image(monkeypatch):
    drawn = []
    monkeypatch.setattr(randaug, "NAMES", ("Cutout",))
    monkeypatch.setattr(randaug, "cutout", lambda image, half, centre: drawn.append((half, *centre)) or image)
    image, op = np.zeros((5, 11, 3), np.uint8), ops.OPS["randaug"](1, 10)
    for number in range(1100):
        op.apply(image, order.generator(0, 0, number))
    half, rows, columns = np.transpose(drawn)
    assert np.all(half == 40) and {*rows} == set(range(5)) and {*columns} == set(range(11))
    counts = np.bincount(rows * 11 + columns, minlength=55)
    assert np.square(counts - 20).sum() / 20 < 108  # chi-squared of 54 degrees of freedom: once in 50,000 seeds


def test_a_magnitude_beyond_the_table_or_a_fourth_channel_is_an_error():
    with pytest.raises(types.InputError, match=r"magnitude lies in 0..30.*Signature: randaug"):
        ops.parse("randaug(2, 31)")
    with pytest.raises(types.InputError, match="takes 1 or 3 channels, not 4"):
        ops.OPS["randaug"]().apply(np.zeros((4, 4, 4), np.uint8), order.generator(0, 0, 0))


@pytest.mark.slow
def test_the_golden_file_is_what_tensorflow_makes(golden):
    pytest.importorskip("tensorflow", reason="only TensorFlow can make the file again")
    made = AUGMENT.make()
    assert made.keys() == golden.keys()
    assert all(np.array_equal(made[name], golden[name]) for name in golden)
