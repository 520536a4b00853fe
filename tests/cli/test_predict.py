"""`predict` as a person types it, with small random weights in every form it takes."""

import csv
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from transformer_jax import config, experiment, paths
from transformer_jax.cli import main
from transformer_jax.experiment import predictor, sections
from transformer_jax.models import functional, vit
from transformer_jax.transfer import convert, formats

TINY = dict(variant=None, width=16, depth=2, heads=2, mlp_dim=32, patch=8, head_zero=False)
CLASSES = ["cat", "dog", "owl"]


def parameters(**model):
    """Random parameters of a small ViT under our names, and the settings of its model."""
    settings = {**TINY, "image_size": 32, "num_classes": 3, **model}
    made = functional.from_family("vit", **settings)
    rng = np.random.default_rng(0)
    flat = {  # drawn, not initialised: that would take seconds
        path: (path.endswith("/scale") + rng.normal(0, 0.3, leaf.shape)).astype(np.float32)
        for path, leaf in predictor.layers(made).items()
    }
    return flat, settings


def placed(flat, made):
    """Parameters by neutral path as the tree that `made.apply` takes."""
    return jax.tree.map(jnp.asarray, paths.unflatten(paths.stack(flat, made.stacks, np.stack)))


def ours(path, *, preprocess="decode | resize(32) | value_range(-1, 1)", **model):
    """A weights file of ours: the parameters, the experiment they were trained in, and the names of the classes."""
    flat, settings = parameters(**model)
    recipe = dict(
        name="tiny",
        model=dict(name="vit", **settings),
        data=dict(source="folder:nowhere", preprocess=preprocess, batch_size=4),
        optim=dict(name="sgd"),
        schedule=dict(name="constant", base=0.1),
        train=dict(total=1),
    )
    saved = config.plain(sections.settled(experiment.resolve(ml_collections.ConfigDict(recipe))))
    formats.write_safetensors(path, flat, {"config": saved, "class_names": CLASSES})
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five images of different sizes, two in a folder of their own."""
    root = tmp_path_factory.mktemp("photos")
    (root / "deep").mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a.png", "b.png", "c.png", "deep/d.png", "deep/e.png")):
        Image.fromarray(rng.integers(0, 256, (40 + i, 60, 3), np.uint8)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return ours(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def predict(checkpoint, *words):
    return main.main(["predict", "--checkpoint", str(checkpoint), *map(str, words)])


def test_a_table_holds_what_is_printed(weights, photos, tmp_path, capsys):
    assert predict(weights, photos / "a.png", photos / "b.png", "--csv", tmp_path / "t.csv", "--top", 2) == 0
    printed = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    header, *rows = csv.reader((tmp_path / "t.csv").open())
    assert header == ["path", "class", "probability", "class_2", "probability_2"]
    assert [row[0] for row in rows] == [line[0] for line in printed] == [f"{photos}/a.png", f"{photos}/b.png"]
    for (_, first, p, second, q), (_, *ranked) in zip(rows, printed, strict=True):
        assert [f"{first} {float(p):.4f}", f"{second} {float(q):.4f}"] == ranked
        assert {first, second} < set(CLASSES) and 1 >= float(p) >= float(q) >= 0


def test_a_directory_stands_for_its_images_and_the_batch_size_changes_nothing(weights, photos, tmp_path, capsys):
    for batch, name in ((2, "few.npy"), (32, "all.npy")):
        assert predict(weights, photos, "--batch-size", batch, "--logits", tmp_path / name) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[0] for line in lines] == [
            f"{photos}/{name}" for name in ("a.png", "b.png", "c.png", "deep/d.png", "deep/e.png")
        ]
    np.testing.assert_allclose(np.load(tmp_path / "few.npy"), np.load(tmp_path / "all.npy"), atol=1e-5)


def test_another_preprocessing_replaces_that_of_the_run(weights, photos, tmp_path):
    pixels = np.asarray(Image.open(photos / "a.png"))[4:36, 14:46]
    for scale, low, high in (("value_range(-1, 1)", -1, 1), ("value_range(0, 1)", 0, 1)):
        words = ["--preprocess", f"decode | central_crop(32) | {scale}", "--logits", tmp_path / "files.npy"]
        assert predict(weights, photos / "a.png", *words) == 0
        np.save(tmp_path / "x.npy", (pixels / 255 * (high - low) + low).astype(np.float32)[None])
        assert predict(weights, "--array", tmp_path / "x.npy", "--logits", tmp_path / "array.npy") == 0
        np.testing.assert_allclose(np.load(tmp_path / "files.npy"), np.load(tmp_path / "array.npy"), atol=1e-4)


@pytest.mark.parametrize(
    "words, message",
    [
        (["a.png", "--preprocess", "decode"], "must have one shape after their preprocessing"),
        (["--array", "x.npy", "--preprocess", "decode"], "goes with image files only"),
        (["empty"], "A directory must hold images"),
        (["a.png", "--csv", "no/such/t.csv"], "--csv must lie in a directory that exists"),
        (["a.png", "--attention", "no/such/o.png"], "--attention must lie in a directory that exists"),
        (["a.png", "--attention", "out.npy"], "--attention names a picture"),
        (["a.png", "--top", "0"], "must be at least 1"),
        (["a.png", "--csv", "deep"], "--csv must name a file: 'deep' is a directory"),
    ],
)
def test_bad_input_is_explained(weights, photos, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir(exist_ok=True)
    more = ["b.png"] if words[-1] == "decode" and words[0] == "a.png" else []
    assert predict(weights, *more, *words) == 2
    assert message in capsys.readouterr().err


def test_a_bad_image_is_told_and_costs_only_itself(weights, photos, tmp_path, monkeypatch, capsys):
    """In the middle of a batch, as the whole of one, and a file that cannot be opened."""
    good, bad, locked = [photos / "a.png", photos / "b.png"], tmp_path / "bad.png", tmp_path / "locked.png"
    for file in (bad, locked):
        file.write_bytes((photos / "a.png").read_bytes()[:200])
    monkeypatch.setattr(pathlib.Path, "read_bytes", _locked(locked))
    words = ["--csv", tmp_path / "t.csv", "--logits", tmp_path / "l.npy", "--attention", tmp_path / "o.png"]
    assert predict(weights, good[0], bad, bad, locked, good[1], *words, "--batch-size", 2) == 1
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()] == list(map(str, good))
    assert [line.split(": ")[2] for line in err.splitlines()[:3]] == list(map(str, (bad, bad, locked)))
    assert "Permission denied" in err and "predict: 3 images could not be read" in err.splitlines()[3]
    assert [row[0] for row in csv.reader((tmp_path / "t.csv").open())] == ["path", *map(str, good)]
    assert predict(weights, *good, "--logits", tmp_path / "good.npy") == 0
    found = np.load(tmp_path / "l.npy")
    np.testing.assert_allclose(found[[0, 4]], np.load(tmp_path / "good.npy"), atol=1e-5)
    assert found.shape == (5, 3) and np.isnan(found[1:4]).all()
    assert sorted(path.name for path in tmp_path.glob("o*")) == ["o_0.png", "o_4.png"]


def _locked(file, read=pathlib.Path.read_bytes):
    def read_bytes(path):
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    return read_bytes


def test_what_stops_prediction_leaves_old_results_and_nothing_half_written(weights, photos, tmp_path, capsys):
    """The second batch has an image that the crop does not fit; then there is no image at all that can be read."""
    (tmp_path / "t.csv").write_text("old")
    written = ["--csv", tmp_path / "t.csv", "--logits", tmp_path / "l.npy"]
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    words = ["--preprocess", "decode | central_crop(32)", "--batch-size", 1]
    assert predict(weights, photos / "a.png", tmp_path / "small.png", *written, *words) == 2
    out, err = capsys.readouterr()
    assert "a.png" in out and "needs a larger image than 20x20" in err
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert predict(weights, tmp_path / "bad.png", *written) == 2
    assert "predict needs an image that can be read: there is none, and nothing was written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.png", "small.png", "t.csv"]
    assert (tmp_path / "t.csv").read_text() == "old"


def test_results_go_through_links_and_into_pipes(weights, photos, tmp_path, capfd):
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    assert predict(weights, photos / "a.png", "--csv", tmp_path / "link.csv", "--logits", tmp_path / "bare") == 0
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text().startswith("path,class")
    assert np.load(tmp_path / "bare.npy").shape == (1, 3)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert predict(weights, photos / "a.png", "--csv", tmp_path / "pipe") == 0
    assert os.read(reader, 1000).startswith(b"path,class")
    os.close(reader)


@pytest.mark.parametrize(
    "model",
    [
        dict(),
        dict(pool="gap", registers=2, image_size=(32, 48)),
        dict(pool="map", class_token=True, registers=1),
    ],
    ids=["class token", "mean of a wide grid beside registers", "MAP head"],
)
def test_attention_is_drawn_for_every_way_to_pool(model, photos, tmp_path):
    height, width = (32, 48) if "image_size" in model else (32, 32)
    weights = ours(tmp_path / "w.safetensors", preprocess=f"decode | resize({height}, {width}) | value_range", **model)
    assert predict(weights, photos / "a.png", "--attention", tmp_path / "out.png") == 0
    zoom = 224 // width
    assert Image.open(tmp_path / "out.png").size == (2 * (zoom * width + 4) + 4, 2 * (zoom * width + 18) + 4)
    found = experiment.Predictor(str(weights))
    rows, columns = height // 8, width // 8
    layers, pooling = found.attention(np.zeros((height, width, 3), np.uint8))
    prefix = layers.shape[-1] - rows * columns
    assert layers.shape[:2] == (2, 2) and prefix == {"gap": 2, "map": 2}.get(model.get("pool"), 1)
    np.testing.assert_allclose(layers.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(pooling.sum(axis=-1), 1, atol=1e-5)
    assert len(pooling) == (2 if model.get("pool") == "map" else 1)
    if model.get("pool") == "gap":
        np.testing.assert_allclose(pooling[0], [0] * prefix + [1 / (rows * columns)] * (rows * columns), atol=1e-6)


def test_a_distilled_model_looks_with_both_of_its_tokens(tmp_path):
    found = experiment.Predictor(str(ours(tmp_path / "w.safetensors", distilled=True)))
    layers, pooling = found.attention(np.zeros((32, 32, 3), np.uint8))
    assert layers.shape[-1] == 2 + 16
    np.testing.assert_array_equal(pooling, [[0.5, 0.5] + [0.0] * 16])


def test_a_model_without_attention_says_so(tmp_path, photos, monkeypatch, capsys):
    weights = ours(tmp_path / "w.safetensors")
    monkeypatch.delattr(vit.ViT, "attention_maps")
    assert predict(weights, photos / "a.png", "--attention", tmp_path / "out.png") == 2
    assert "this one is of the family 'vit'. Leave --attention out" in capsys.readouterr().err


def test_several_images_have_a_numbered_picture_each(weights, photos, tmp_path):
    assert predict(weights, photos / "a.png", photos / "b.png", "--attention", tmp_path / "out.png") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_0.png", "out_1.png"]
    pictures = [np.asarray(Image.open(tmp_path / f"out_{i}.png")).astype(int) for i in range(2)]
    assert np.max(np.abs(pictures[0] - pictures[1])) > 50


def test_an_array_is_drawn_like_the_file_it_was(weights, photos, tmp_path):
    pixels = np.asarray(Image.open(photos / "a.png"))[4:36, 14:46]
    np.save(tmp_path / "x.npy", (pixels / 127.5 - 1).astype(np.float32)[None])
    words = ["--preprocess", "decode | central_crop(32) | value_range(-1, 1)"]
    assert predict(weights, photos / "a.png", *words, "--attention", tmp_path / "file.png") == 0
    assert predict(weights, "--array", tmp_path / "x.npy", "--attention", tmp_path / "array.png") == 0
    drawn = [np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("file", "array")]
    assert np.max(np.abs(drawn[0] - drawn[1])) <= 2


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published(folder, to, **model):
    """Weights as others publish them: their names, their notes beside them, nothing of ours. And what computes them."""
    flat, settings = parameters(activation="gelu_tanh" if to == "npz" else "gelu_erf", **model)
    folder.mkdir()
    path = folder / ("B_16.npz" if to == "npz" else "model.safetensors")
    meta = {"class_names": CLASSES} | ({"normalize": {"mean": MEAN, "std": STD}} if to == "timm" else {})
    convert.save(path, flat, {"name": "vit", **settings}, to=to, meta=meta)
    if to == "npz":
        (folder / "B_16.json").unlink()
    else:
        safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)  # without what our header tells
    made = functional.from_family("vit", **settings)
    params = placed(flat, made)
    return path, lambda image: np.asarray(jax.jit(made.apply)(params, image))


@pytest.mark.parametrize("to", ["npz", "timm", "hf"])
def test_published_weights_classify_as_their_own_code_would(to, tmp_path, capsys):
    path, logits = published(tmp_path / to, to)
    pixels = np.random.default_rng(0).integers(
        0, 256, (37, 37, 3), np.uint8
    )  # 8/7 of 32, so that only the crop is left
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert predict(path, tmp_path / "image.png", "--logits", tmp_path / "found.npy") == 0
    image = pixels[None, 2:34, 2:34] / 255
    image = (image - MEAN) / STD if to == "timm" else image * 2 - 1
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), logits(image.astype(np.float32)), atol=1e-4)
    line = capsys.readouterr().out
    assert all(name in line for name in (["class 0", "class 1", "class 2"] if to == "npz" else CLASSES))


def test_a_model_whose_sizes_are_all_the_usual_ones_is_no_exception(photos, tmp_path, capsys):
    path, _ = published(tmp_path / "npz", "npz", image_size=224, patch=56, num_classes=1000)
    assert predict(path, photos / "a.png", "--logits", tmp_path / "found.npy") == 0
    assert np.load(tmp_path / "found.npy").shape == (1, 1000)


def test_weights_without_a_head_are_no_classifier(tmp_path, photos, capsys):
    flat, _ = parameters()
    formats.write_npz(tmp_path / "w.npz", {k: v for k, v in flat.items() if not k.startswith("head/")})
    assert predict(tmp_path / "w.npz", photos / "a.png") == 2
    assert "predict needs a classifier" in capsys.readouterr().err


def test_a_checkpoint_that_knows_no_classes_numbers_them(photos, tmp_path, capsys):
    path = ours(tmp_path / "w.safetensors")
    arrays, meta = formats.read_safetensors(path)
    del meta["class_names"]
    formats.write_safetensors(path, arrays, json.loads(json.dumps(meta)))
    assert predict(path, photos / "a.png") == 0
    assert "class 0 0." in capsys.readouterr().out
