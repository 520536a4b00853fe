"""Every op keeps one contract, bare and in a pipeline; preprocessing strings are parsed and their mistakes named."""

import dataclasses
import inspect
import pickle

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import image_ops, operation, ops, order, pipeline

from . import fakes

# One instance of every op of the table, as a string; what it needs before it; what it makes of a 10x12 picture.
CONTRACT = {
    "decode": ("decode(1)", "", (10, 12, 1)),
    "resize": ("resize(6, 5)", "decode | ", (6, 5, 3)),
    "resize_small": ("resize_small(5)", "decode | ", (5, 6, 3)),
    "central_crop": ("central_crop(4, 6)", "decode | ", (4, 6, 3)),
    "random_crop": ("random_crop(7)", "decode | ", (7, 7, 3)),
    "inception_crop": ("inception_crop(5)", "decode | ", (5, 5, 3)),
    "flip_lr": ("flip_lr", "decode | ", (10, 12, 3)),
    "pad": ("pad(2, 9)", "decode | ", (14, 16, 3)),
    "shift": ("shift(3)", "decode | ", (10, 12, 3)),
    "randaug": ("randaug(2, 15)", "decode | ", (10, 12, 3)),
    "colour_jitter": ("colour_jitter(0.4, 0.4, 0.4, 0.2)", "decode | ", (10, 12, 3)),
    "erase": ("erase(0.8)", "decode | ", (10, 12, 3)),
    "random_affine": ("random_affine(30, shear=10)", "decode | ", (10, 12, 3)),
    "jitter": ("jitter(0.4, 0.4)", "decode | ", (10, 12, 3)),
    "cutout": ("cutout(4)", "decode | ", (10, 12, 3)),
    "value_range": ("value_range(0, 1)", "decode | ", (10, 12, 3)),
    "normalize": ("normalize((0.5,), (0.25,))", "decode | ", (10, 12, 3)),
    "onehot": ("onehot(5)", "decode | ", (10, 12, 3)),
    "multihot": ("multihot(5)", "decode | ", (10, 12, 3)),
    "keep": ("keep('image', 'label')", "decode | ", (10, 12, 3)),
    "drop": ("drop('id')", "decode | ", (10, 12, 3)),
    "copy": ("copy('label', 'again')", "decode | ", (10, 12, 3)),
}
RANDOM = {
    "random_crop",
    "inception_crop",
    "flip_lr",
    "shift",
    "randaug",
    "colour_jitter",
    "erase",
    "random_affine",
    "jitter",
    "cutout",
}
SCALED = {"value_range", "normalize"}
every_op = pytest.mark.parametrize("name", ops.OPS)


def _example(index=0, channels=3):
    return {"image": fakes.picture(10, 12, channels, seed=index), "label": index % 5, "id": f"number {index}"}


def _op(name):
    (op,) = ops.parse(CONTRACT[name][0])
    return op


def test_every_op_of_the_table_is_under_contract():
    assert CONTRACT.keys() == ops.OPS.keys()
    for name in ops.OPS:
        assert CONTRACT[name][0].split("(")[0] == name


@every_op
def test_an_op_runs_bare_and_leaves_its_input_alone(name):
    example = _example()
    before = {key: np.copy(value) for key, value in example.items()}
    out = _op(name)(example, order.generator(0, 0, 0))
    assert out["image"].shape == CONTRACT[name][2]
    assert out["image"].dtype == (np.float32 if name in SCALED else np.uint8)
    assert example.keys() == before.keys() and all(np.array_equal(example[key], before[key]) for key in before)


@every_op
def test_an_op_is_a_function_of_its_generator(name):
    op, example = _op(name), _example()
    outs = [op(example, order.generator(0, 0, i))["image"].tobytes() for i in [*range(12), 0]]
    assert op.random == (name in RANDOM)
    assert outs[0] == outs[-1] and (len(set(outs)) > 1) == op.random


@every_op
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_its_examples(name, channels):
    op = _op(name)
    examples = [{k: v for k, v in _example(i, channels).items() if k != "id" or name == "drop"} for i in range(6)]
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    together = op.batched(batch, [order.generator(0, 1, i) for i in range(6)])
    for i, example in enumerate(examples):
        alone = op(example, order.generator(0, 1, i))
        assert alone.keys() == together.keys()
        for key in alone:
            assert np.array_equal(together[key][i], alone[key]) and together[key].dtype == np.asarray(alone[key]).dtype


@every_op
@pytest.mark.parametrize("in_memory", [True, False])
def test_an_op_runs_inside_a_pipeline(name, in_memory):
    source = fakes.source(6, size=12)
    source.images = np.stack([fakes.picture(10, 12, 3, seed=i) for i in range(6)])
    source.in_memory = in_memory
    text, before, shape = CONTRACT[name]
    train = pipeline.Train(source, before + text + " | resize(5)" * (name not in SCALED), batch_size=4, seed=0)
    stream = train.batches(0)
    image = next(stream)["image"]
    stream.close()
    assert image.dtype == np.uint8 and image.shape[3] == shape[2]


@every_op
def test_an_op_pickles_and_compares_by_its_arguments(name):
    op = _op(name)
    assert pickle.loads(pickle.dumps(op)) == op and hash(op) == hash(_op(name))
    assert type(op).__doc__ and isinstance(op, operation.Op)


@every_op
def test_a_wrong_keyword_shows_the_signature(name):
    with pytest.raises(types.InputError, match=rf"Signature: {name}\("):
        ops.parse(f"{name}(nonsense=1)")


@every_op
def test_a_wrong_type_shows_the_signature(name):
    arguments = {"flip_lr": "key=[]", "copy": "'a', []", "normalize": "[], (1.0,)"}.get(name, "[]")
    with pytest.raises(types.InputError, match=rf"must be .*, not .*Signature: {name}\("):
        ops.parse(f"{name}({arguments})")


def test_a_string_is_parsed_to_ops():
    assert ops.parse("decode | inception_crop((224, 192), area_min=8) | flip_lr|value_range(-1, 1)") == [
        ops.OPS["decode"](),
        ops.OPS["inception_crop"]((224, 192), area_min=8),
        ops.OPS["flip_lr"](),
        ops.OPS["value_range"](-1, 1),
    ]
    assert ops.parse("") == ops.parse("  ") == [] and ops.parse("pad(1)\n| pad(2)") == ops.parse("pad(1) | pad(2)")
    assert ops.parse(ops.parse("pad(1)")) == ops.parse("pad(1)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decode | flip_rl", "'flip_rl' is not a preprocessing op. Did you mean 'flip_lr'"),
        ("decode | | flip_lr", "Cannot read"),
        ("decode | resize(", "Cannot read"),
        ("resize", r"missing a required argument: 'height'.*resize\(height: int, width: int \| None = None"),
        ("resize(1, 2, 'bilinear', 4)", "too many positional"),
        ("resize(True)", "height must be int"),
        ("resize(3.5)", "height must be int"),
        ("resize(0)", "sizes are positive"),
        ("resize(8, method='bicubik')", "method is one of nearest, bilinear"),
        ("inception_crop(8, 50, 20)", "area_min <= area_max"),
        ("decode(2)", "channels is 1, 3 or 4"),
        ("value_range(1, 1)", "low is less than high"),
        ("keep()", "at least one field"),
        ("resize(__import__('os').getpid())", "literals"),
        ("resize(size)", "literals"),
        ("resize(**{'height': 3})", "literals"),
        ("(lambda: 3)() | decode", "a name or a call"),
        ("decode + flip_lr", "a name or a call"),
        ("3", "a name or a call"),
    ],
)
def test_a_mistake_in_a_string_is_named(text, message):
    with pytest.raises(types.InputError, match=message):
        ops.parse(text)


@pytest.mark.parametrize(
    ("text", "example", "message"),
    [
        ("flip_lr", {"image": b"jpeg"}, 'Write "decode'),
        ("flip_lr", {"label": 3}, "needs the field 'image'. The example has: label"),
        ("flip_lr", {"image": np.zeros((4, 4, 3), np.float32)}, "Put value_range last"),
        ("random_crop(9)", {"image": np.zeros((8, 20, 3), np.uint8)}, "larger image than 8x20"),
        ("central_crop(9)", {"image": np.zeros((8, 20, 3), np.uint8)}, "larger image than 8x20"),
        ("keep('image', 'text')", {"image": 1}, "needs the field 'text'"),
        ("onehot(3)", {"label": 3}, r"labels in 0..2, not 3"),
    ],
)
def test_an_example_an_op_cannot_take_is_an_error(text, example, message):
    (op,) = ops.parse(text)
    with pytest.raises(types.InputError, match=message):
        op(example, order.generator(0, 0, 0))


def _boxes(op, height, width, count=2000):
    return np.array([op.box(height, width, order.generator(0, 0, i)) for i in range(count)])


def test_inception_boxes_lie_inside_with_the_area_and_aspect_asked_for():
    op = ops.OPS["inception_crop"](8, 20, 60)
    top, left, height, width = _boxes(op, 375, 500).T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 375).all() and (left + width <= 500).all()
    area = height * width / (375 * 500)
    assert area.min() >= 0.2 and area.max() <= 0.6 and np.ptp(area) > 0.35
    assert (width / height).min() > 0.74 and (width / height).max() < 1.34
    assert top.min() == 0 and left.min() == 0


def test_an_impossible_inception_crop_is_the_whole_image():
    assert ops.OPS["inception_crop"](8, 90, 100).box(10, 1000, order.generator(0, 0, 0)) == (0, 0, 10, 1000)


def test_a_shift_reaches_every_place_up_to_its_pixels():
    image = np.zeros((5, 5, 1), np.uint8)
    image[2, 2] = 200
    op = ops.OPS["shift"](2)
    places = {
        tuple(np.argwhere(op({"image": image}, order.generator(0, 0, i))["image"][..., 0])[0]) for i in range(400)
    }
    assert len(places) == 25


def test_central_crop_takes_the_middle_and_value_range_maps_the_ends():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    cropped = ops.OPS["central_crop"](3)({"image": image}, order.generator(0, 0, 0))["image"]
    assert cropped[..., 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
    ends = np.array([0, 255], np.uint8).reshape(1, 2, 1)
    scaled = ops.OPS["value_range"](-1, 1)({"image": ends}, order.generator(0, 0, 0))["image"]
    assert np.allclose(scaled.ravel(), [-1, 1], atol=1e-6)


def test_decode_gives_decoded_pixels_the_channels_asked_for():
    colour = fakes.picture(4, 5)
    grey = ops.OPS["decode"](1)({"image": colour}, order.generator(0, 0, 0))["image"]
    encoded = ops.OPS["decode"](1)({"image": fakes.encoded(colour, "PNG")}, order.generator(0, 0, 0))["image"]
    assert np.array_equal(grey, encoded)
    assert np.array_equal(ops.OPS["decode"]()({"image": grey}, order.generator(0, 0, 0))["image"], grey.repeat(3, -1))


def test_a_large_crop_is_decoded_at_full_size_when_asked():
    data = fakes.encoded(fakes.picture(200, 240), quality=90)
    crop = ops.OPS["inception_crop"](20, 60)
    for reduce in (True, False):
        decode = ops.OPS["decode"](reduce=reduce)
        fused = image_ops.DecodeAndInceptionCrop(decode, crop)
        pairs = []
        for number in range(5):
            whole = decode({"image": data}, order.generator(0, 0, number))
            pairs.append(
                [op(x, order.generator(0, 0, number))["image"] for op, x in ((crop, whole), (fused, {"image": data}))]
            )
        assert all(np.array_equal(one, other) for one, other in pairs) != reduce


def test_every_op_is_a_frozen_dataclass_of_plain_arguments():
    for name, op in ops.OPS.items():
        assert dataclasses.is_dataclass(op) and "self" not in ops.signature(name)
        assert "key" not in ops.signature(name) and inspect.getdoc(op)
