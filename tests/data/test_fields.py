"""Labels as rows, and sources whose examples have a set of labels: batches, views, previews."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from transformer_jax import types
from transformer_jax.data import loading, ops, order, pipeline, preview, sources, views

from . import fakes, prepared

SETS = [[0, 4], [], [3], [1, 2, 3], [4], []]


class Sets:
    """Six grey images, each with a set of labels."""

    name, num_classes, class_names = "sets train", 5, ("a", "b", "c", "d", "e")
    fingerprint, in_memory, multilabel = "sets", True, True

    def __len__(self):
        return len(SETS)

    def __getitem__(self, index):
        image = np.full((8, 8, 1), 10 * index, np.uint8)
        return {"image": image, "label": np.array(SETS[index], np.int32), "id": f"sets[{index}]"}


def _rows(indices):
    return np.array([[float(c in SETS[i]) for c in range(5)] for i in indices], np.float32)


def _op(text):
    (op,) = ops.parse(text)
    return op


def test_a_set_of_labels_is_a_row_with_a_one_for_each():
    op = _op("multihot(5)")
    for labels in ([0, 3], [3, 0, 3], np.array([0, 3], np.int32), np.array([0, 3])):
        row = op({"label": labels}, order.generator(0, 0, 0))["label"]
        assert row.tolist() == [1, 0, 0, 1, 0] and row.dtype == np.float32
    for empty in ([], np.array([], np.int32)):
        assert op({"label": empty}, order.generator(0, 0, 0))["label"].tolist() == [0] * 5
    single = [op({"label": 2}, order.generator(0, 0, 0))["label"] for op in ops.parse("multihot(5) | onehot(5)")]
    assert np.array_equal(*single)


@pytest.mark.parametrize("label", [5, -1, [0, 5]])
def test_a_label_beyond_the_classes_is_an_error(label):
    with pytest.raises(types.InputError, match=r"MultiHot.* needs labels in 0..4, not (5|-1)"):
        _op("multihot(5)")({"label": label}, order.generator(0, 0, 0))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "multihot(5)",
        "resize(6) | flip_lr | value_range(-1, 1) | multihot(5)",
        "shift(1) | copy('label', 'again') | drop('again') | multihot(5)",
    ],
)
def test_batches_of_sets_are_rows_whatever_comes_before(monkeypatch, in_memory, text):
    monkeypatch.setattr(Sets, "in_memory", in_memory)
    pipe = pipeline.Train(Sets(), text, batch_size=3, seed=1, ids=True)
    stream = pipe.batches(0)
    for _ in range(4):
        batch = next(stream)
        at = [int(name[5:-1]) for name in batch["_id"]]
        assert np.array_equal(batch["label"], _rows(at)) and batch["label"].dtype == np.float32
        assert batch["image"].dtype == np.uint8
    stream.close()
    assert pipe.label_shape == (5,)
    batches = list(pipeline.Evaluate(Sets(), text, batch_size=4))
    assert [batch["mask"].sum() for batch in batches] == [4, 2]
    assert np.array_equal(np.concatenate([b["label"] for b in batches])[:6], _rows(range(6)))


def test_rows_are_made_before_the_image_is_touched_so_that_they_can_be_kept():
    plan = loading.plan(ops.parse("resize(6) | flip_lr | multihot(5) | value_range(-1, 1)"))
    assert [type(op).__name__ for op in plan.fixed] == ["MultiHot", "Resize"] and len(plan.drawn) == 1
    plan = loading.plan(ops.parse("flip_lr | copy('again', 'label') | multihot(5)"))
    assert [type(op).__name__ for op in plan.drawn] == ["FlipLR", "Copy", "MultiHot"]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("text", ["decode(1)", "flip_lr", "onehot(5)"])
def test_a_batch_of_sets_that_are_no_rows_is_an_error_with_the_remedy(monkeypatch, in_memory, text):
    monkeypatch.setattr(Sets, "in_memory", in_memory)
    with pytest.raises(types.InputError, match=r"'sets train' are sets of classes: add multihot\(5\)"):
        next(pipeline.Train(Sets(), text, batch_size=1, seed=0).batches(0))


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_that_are_dropped_need_no_rows(monkeypatch, in_memory):
    monkeypatch.setattr(Sets, "in_memory", in_memory)
    batch = next(pipeline.Train(Sets(), "flip_lr | keep('image')", batch_size=2, seed=0).batches(0))
    assert batch.keys() == {"image"}


def test_slices_of_sets_are_sets_and_have_no_list_of_labels():
    part = views.select({"train": Sets()}, "train[1:3]+train[:1]", name="some")
    assert part.multilabel and [example["label"].tolist() for example in views.read(part, [0, 1, 2])] == [
        [],
        [3],
        [0, 4],
    ]
    assert not views.multilabel(fakes.source())
    for ask in (lambda: views.labels(part), lambda: views.balanced(Sets(), 3), lambda: views.labels(Sets())):
        with pytest.raises(types.InputError, match="one label here, those of '(some|sets train)' have a set of them"):
            ask()


def test_a_preview_names_every_class_of_a_set(tmp_path):
    assert preview.caption(Sets(), Sets()[3]["label"]) == "b c d"
    assert preview.caption(Sets(), Sets()[1]["label"]) == "(no label)"
    assert preview.caption(Sets(), 2) == "c"
    preview.contact_sheet(Sets(), "resize(16)", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (3 * 100 + 4, 2 * 114 + 4)


def test_the_labels_of_real_are_read_from_tfds(tmp_path):
    """The features of imagenet2012_real, with five classes."""
    names = ["tench", "goldfish", "shark", "ray", "cock"]
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "original_label": tfds.features.ClassLabel(names=names),
        "real_label": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
        "file_name": tfds.features.Text(),
    }
    examples = [
        {
            "image": prepared.png(prepared.grey((4, 4, 3), i)),
            "original_label": i % 5,
            "real_label": labels,
            "file_name": f"ILSVRC2012_val_{i + 1:08}.JPEG",
        }
        for i, labels in enumerate(SETS)
    ]
    prepared.write(tmp_path, "imagenet2012_real", features, {"validation": examples})
    open_real = {"spec": "tfds:imagenet2012_real", "split": "validation", "data_dir": str(tmp_path)}
    source = sources.open_source(**open_real, label_key="real_label")
    assert source.multilabel and source.class_names == tuple(names) and source.num_classes == 5
    assert [(e["label"].dtype, e["label"].tolist()) for e in source.__getitems__([0, 1, 3])] == [
        (np.int32, [0, 4]), (np.int32, []), (np.int32, [1, 2, 3]),
    ]  # fmt: skip
    assert "ILSVRC2012_val_00000002.JPEG" in source[1]["id"]
    (batch,) = pipeline.Evaluate(source, "decode | resize(4) | multihot(5)", batch_size=6)
    assert np.array_equal(batch["label"], _rows(range(6)))
    with pytest.raises(types.InputError, match="have a set of them"):
        sources.open_source(**open_real, label_key="real_label", labels=3)
    original = sources.open_source(**open_real, label_key="original_label")
    assert not original.multilabel and original.labels().tolist() == [0, 1, 2, 3, 4, 0]
    assert original.fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normalize((0.5, 0.5), (0.5,))", "mean and std have as many numbers"),
        ("normalize((), ())", "mean and std have as many numbers"),
        ("normalize((0.5,), (0.0,))", "std is positive"),
        ("normalize(0.5, 0.5)", r"mean must be tuple\[float, ...\]"),
        ("multihot(0)", "classes is positive"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(text, message):
    with pytest.raises(types.InputError, match=message):
        ops.parse(text)


def test_normalised_pixels_are_left_to_the_device_or_made_on_the_host():
    text = "normalize((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))"
    low, high = loading.plan(ops.parse(f"resize(4) | flip_lr | {text} | onehot(5)")).pixel_range
    assert np.allclose(low, (-4, -2.5, -2)) and np.allclose(high, (6, 2.5, 0.4 / 0.3))
    plan = loading.plan(ops.parse(f"{text} | copy('image', 'again')"))
    assert plan.pixel_range is None and len(plan.fixed) == 2
    image = np.array([[[0, 102, 255]]], np.uint8)
    out = _op(text)({"image": image}, order.generator(0, 0, 0))["image"]
    assert out.dtype == np.float32 and np.allclose(out, [-4, -0.5, 0.4 / 0.3], atol=1e-6)
    with pytest.raises(types.InputError, match="3 are given, the image has 1 channel. Change them"):
        _op(text)({"image": image[..., :1]}, order.generator(0, 0, 0))
