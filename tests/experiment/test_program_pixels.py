"""Pixels scaled on the device are those the ops make on the host, for one range and for one a channel."""

import jax
import numpy as np
import pytest

from tests.experiment import small
from transformer_jax import types
from transformer_jax.data import arrays, loading, ops, order, pipeline
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import shared as sharing

IMAGENET = "normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))"
STRINGS = ["value_range(-1, 1)", "value_range(0, 1)", "normalize((0.5,), (0.5,))", IMAGENET]


def _levels(channels=3):
    """Every level in every channel."""
    return np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(2, 16, 8, 1), (2, 16, 8, channels)).copy()


def _program(text, **changes):
    return programs.Program(small.tiny(**changes), loading.plan(ops.parse(text)).pixel_range)


def _exact(text, image):
    """The definition in float64."""
    pixels = image / 255
    if text == IMAGENET:
        return (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels if text == "value_range(0, 1)" else 2 * pixels - 1


@pytest.mark.parametrize("text", STRINGS)
def test_the_device_makes_the_pixels_of_the_op(text):
    program, image = _program(text, model__channels="3", model__num_classes="10"), _levels()
    placed = jax.numpy.asarray(image)
    (op,) = ops.parse(text)
    host = op.batched({"image": image}, [order.generator(0, 0, 0)])["image"]
    assert host.dtype == np.float32
    assert np.abs(host - _exact(text, image)).max() < 4e-7
    eager = np.asarray(program.scale(placed))
    assert eager.dtype == np.float32 and np.array_equal(eager, host)
    # Compiled, the product and the sum may be one rounding instead of two.
    assert np.abs(np.asarray(jax.jit(program.scale)(placed)) - host).max() <= np.spacing(np.float32(2))


def test_one_number_a_channel_is_one_number_for_all_when_they_are_equal():
    one, three, both = (
        loading.plan(ops.parse(text)).pixel_range
        for text in ("normalize((0.5,), (0.5,))", "normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))", "value_range(-1, 1)")
    )
    assert one == both == (-1.0, 1.0) and three == ((-1.0,) * 3, (1.0,) * 3)


def _data(text, channels):
    images = np.zeros((4, 8, 8, channels), np.uint8)
    source = arrays.ArraySource(images, np.arange(4) % 2, name="black", split="train", class_names="ab")
    return pipeline.Train(source, text, batch_size=2, seed=0)


def test_examples_must_be_normalised_as_the_model_is_trained():
    program = _program(IMAGENET, model__channels="3", model__num_classes="2")
    program.check(_data(IMAGENET, 3), "data")
    with pytest.raises(types.InputError, match="ends in .-1.0, 1.0.*End both in the same value_range or normalize"):
        program.check(_data("value_range(-1, 1)", 3), "evals.eval")


def test_a_mean_too_few_is_an_error_before_anything_is_compiled():
    program = _program(IMAGENET, model__channels="1", model__num_classes="2")
    with pytest.raises(types.InputError, match="3 are given, the image has 1 channel. Change them, or the channels of"):
        program.check(_data(IMAGENET, 1), "data")


def test_programs_are_shared_by_experiments_that_normalise_alike():
    shared, settings = sharing.Shared(), small.tiny(model__num_classes="10")
    ranges = [loading.plan(ops.parse(text)).pixel_range for text in (IMAGENET, IMAGENET, "value_range(-1, 1)")]
    first, second, third = (shared.program(settings, pixel_range) for pixel_range in ranges)
    assert first is second and first is not third
