"""A folder of images is a data set: classes and counts are inferred, what is wrong with it is said."""

import pickle

import pytest

from transformer_jax import types
from transformer_jax.data import pipeline, sources

from . import fakes


def _fill(root, tree, size=(9, 11)):
    """`{"train/cat": 3}` writes three pictures there."""
    for folder, count in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / folder / f"{i}.jpg").write_bytes(fakes.encoded(fakes.picture(*size, seed=i)))
    return f"folder:{root}"


def test_a_directory_a_split(tmp_path):
    spec = _fill(tmp_path, {"train/dog": 3, "train/cat": 2, "val/cat": 1, "val/dog": 2, "test/dog": 1})
    train, validation = (sources.open_source(spec, split) for split in ("train", "validation"))
    assert train.class_names == ("cat", "dog") and train.num_classes == 2 and len(train) == 5
    assert train.labels().tolist() == [0, 0, 1, 1, 1] == [train[i]["label"] for i in range(5)]
    assert train[2]["id"] == str(tmp_path / "train/dog/0.jpg") and train[2]["image"][:2] == b"\xff\xd8"
    assert validation.labels().tolist() == [0, 1, 1] and len(sources.open_source(spec, "val")) == 3
    assert sources.open_source(spec, "test").labels().tolist() == [1]
    assert len(sources.open_source(spec, "train[:2]+validation[1:]")) == 4
    assert pickle.loads(pickle.dumps(train))[4] == train[4]
    assert len({train.fingerprint, validation.fingerprint, sources.open_source(spec, "test").fingerprint}) == 3


def test_forty_pictures_train_and_evaluate(tmp_path):
    spec = _fill(tmp_path, {f"class{i}": 10 for i in range(4)})
    preprocess = "decode | resize(8) | value_range(-1, 1)"
    train = pipeline.Train(sources.open_source(spec, val_fraction=0.2), preprocess, batch_size=8, seed=0)
    stream = train.batches(0)
    assert [next(stream)["image"].shape for _ in range(3)] == [(8, 8, 8, 3)] * 3
    stream.close()
    validation = sources.open_source(spec, "validation", val_fraction=0.2)
    assert sum(int(batch["mask"].sum()) for batch in pipeline.Evaluate(validation, preprocess, batch_size=3)) == 8


def test_val_fraction_sets_a_fixed_part_of_every_class_aside(tmp_path):
    spec = _fill(tmp_path, {"a": 20, "b": 10, "c": 2})

    def ids(split):
        source = sources.open_source(spec, split, val_fraction=0.1)
        return {source[i]["id"]: source[i]["label"] for i in range(len(source))}

    train, validation = ids("train"), ids("validation")
    assert sorted(validation.values()) == [0, 0, 1, 2] and not train.keys() & validation.keys()
    assert len(train) + len(validation) == 32
    assert ids("validation") == validation
    _fill(tmp_path, {"a": 21})
    assert len(validation.keys() - ids("validation").keys()) <= 1


def test_a_train_directory_with_val_fraction_gives_a_validation_split(tmp_path):
    spec = _fill(tmp_path, {"train/a": 10, "train/b": 10})
    assert len(sources.open_source(spec, "validation", val_fraction=0.2)) == 4
    assert len(sources.open_source(spec, "train", val_fraction=0.2)) == 16


def test_pictures_lie_at_any_depth_and_other_files_are_passed_over(tmp_path):
    spec = _fill(tmp_path, {"a/deep/er": 2, "a": 1, "b": 1, ".hidden": 1, "a/.cache": 1})
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "b" / "UPPER.PNG").write_bytes(fakes.encoded(fakes.picture(), "PNG"))
    source = sources.open_source(spec)
    assert [source[i]["id"][len(str(tmp_path)) + 1 :] for i in range(len(source))] == [
        "a/0.jpg", "a/deep/er/0.jpg", "a/deep/er/1.jpg", "b/0.jpg", "b/UPPER.PNG",
    ]  # fmt: skip


WNIDS = ("n01443537", "n01484850", "n02129165")


def test_imagenets_siblings_are_read_as_they_are_unpacked(tmp_path):
    """ImageNet-R, -A and -Sketch: a directory a wnid, a README beside them."""
    spec = _fill(tmp_path, {name: 2 for name in reversed(WNIDS)})
    (tmp_path / "README.txt").write_text("WordNet ID (e.g., n01443537) and class name")
    (tmp_path / WNIDS[1] / "0.jpg").rename(tmp_path / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG")
    source = sources.open_source(spec)
    assert source.class_names == WNIDS and source.labels().tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(types.InputError, match='To judge on the whole folder set split="train"'):
        sources.open_source(spec, "test")


def test_directories_that_are_numbers_are_classes_in_their_order(tmp_path):
    """ImageNet-v2 names its directories 0 to 999: label 10 is directory 10, not directory 107."""
    spec = _fill(tmp_path, {str(number): 1 for number in range(12)})
    source = sources.open_source(spec)
    assert source.class_names == tuple(str(number) for number in range(12))
    assert [source[i]["id"].split("/")[-2] for i in range(12)] == list(source.class_names)
    assert sources.open_source(_fill(tmp_path, {"x": 1})).class_names[:3] == ("0", "1", "10")


def test_a_folder_may_hold_nothing_but_what_is_judged(tmp_path):
    spec = _fill(tmp_path, {f"val/{name}": 2 for name in WNIDS})
    source = sources.open_source(spec, "validation")
    assert source.class_names == WNIDS and len(source) == 6


@pytest.mark.parametrize(
    ("tree", "split", "options", "message"),
    [
        ({"a": 1, "b": 0}, "train", {}, "at least one image.*none for 'b'"),
        ({"train/a": 1, "train/b": 0}, "train", {}, "none for 'b'"),
        ({"a": 0}, "train", {}, "holds no images"),
        (
            {"train/n01440764": 1, "val": 2},
            "validation",
            {},
            "val holds no images of a class.*no directory a class: mo",
        ),
        ({".": 2}, "train", {}, "no class directories. It holds images"),
        ({"a": 1}, "validation", {}, "no split 'validation', only: train.*val_fraction.*split=.train"),
        ({"val/a": 1}, "train", {}, "no split 'train', only: validation"),
        ({"test/a": 1}, "validation", {"val_fraction": 0.5}, "no split 'validation', only: test"),
        ({"a": 1}, "tset", {}, "Did you mean 'test'"),
        ({"a": 1}, "train", {"val_fraction": 1.5}, "between 0 and 1"),
        ({"train/cat": 1, "val/cta": 1}, "validation", {}, "'cta' is not one of them. Did you mean 'cat'"),
        ({"a": 1}, "train", {"val_fration": 0.1}, "Did you mean 'val_fraction'"),
    ],
)
def test_a_bad_folder_is_described(tmp_path, tree, split, options, message):
    spec = _fill(tmp_path, tree)
    with pytest.raises(types.InputError, match=message):
        sources.open_source(spec, split, **options)


def test_a_missing_folder_is_an_error_that_shows_the_layouts(tmp_path):
    with pytest.raises(types.InputError, match="PATH/train/CLASS/IMAGE"):
        sources.open_source(f"folder:{tmp_path}/nowhere")


def test_a_file_that_vanished_is_named(tmp_path):
    source = sources.open_source(_fill(tmp_path, {"a": 3}))
    (tmp_path / "a" / "1.jpg").unlink()
    pipe = pipeline.Train(source, "decode | resize(8)", batch_size=3, seed=0)
    with pytest.raises(types.InputError, match="a/1.jpg: No such file"):
        next(pipe.batches(0))
