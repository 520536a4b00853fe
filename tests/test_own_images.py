"""The page experiments/transfer/own_images.md: its commands, in their order, over a generated folder."""

import csv
import glob
import html
import json
import re
import shlex
import string
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from transformer_jax import paths
from transformer_jax.cli import main
from transformer_jax.models import functional
from transformer_jax.transfer import convert

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "experiments" / "transfer" / "own_images.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
MODEL = dict(variant=None, width=64, depth=2, heads=1, mlp_dim=64, patch=16, image_size=32, activation="gelu_erf")


VARIABLES = {
    "PHOTOS": "photos",
    "WEIGHTS": "pretrained/model.safetensors",
    "RUN": "run",
    "SIZE": "48",
    "EPOCHS": "2",
    "BATCH": "8",
}


def test_the_page_sets_its_variables_once_and_uses_all_of_them():
    names = [line.partition("=")[0] for line in BLOCKS[0].splitlines()]
    assert names == list(VARIABLES)
    used = re.findall(r"\$([A-Z]+)", "".join(BLOCKS[1:]))
    assert set(used) == set(names)


def test_the_messages_of_the_page_are_those_of_the_program():
    told = re.findall(r"^\| `(.*?)` \|", PAGE.read_text().partition("## When something")[2], re.MULTILINE)
    code = "".join(path.read_text() for path in sorted((ROOT / "transformer_jax").rglob("*.py")))
    assert len(told) >= 8 and [message for message in told if message not in code] == []


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A directory as the page finds it: the recipes, photographs of three colours, small random weights of timm's."""
    root = tmp_path_factory.mktemp("page")
    (root / "experiments").symlink_to(ROOT / "experiments")
    rng = np.random.default_rng(0)
    for label, colour in (("cat", (200, 120, 40)), ("dog", (40, 90, 200)), ("owl", (60, 180, 80))):
        folder = root / "photos" / label
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (60, 80, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg")
    made = functional.from_family("vit", num_classes=5, **MODEL)
    flat = paths.unstack(paths.flatten(made.init(jax.random.key(0))), made.stacks)
    flat = {path: np.asarray(leaf) for path, leaf in flat.items()}
    (root / "pretrained").mkdir()
    convert.save(root / VARIABLES["WEIGHTS"], flat, {"name": "vit", "num_classes": 5, **MODEL}, to="timm")
    return root


@pytest.fixture(scope="module")
def said(page):
    """What every command of the page prints, by command; each exits 0."""
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(page)
        for line in "".join(BLOCKS[1:]).splitlines():
            command = string.Template(line).substitute(VARIABLES)
            words = [hit for word in shlex.split(command) for hit in (sorted(glob.glob(word)) or [word])]
            assert words[0] == "transformer-jax"
            printed[command] = _run(words[1:])
    return printed


def _run(words):
    import contextlib
    import io

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        assert main.main(words) == 0, words
    return stream.getvalue()


def of(said, verb, *, last=True):
    """What the last (or first) command of a verb printed."""
    return [text for command, text in said.items() if command.split()[1] == verb][-1 if last else 0]


def test_the_preview_shows_the_training_images(said, page):
    across, down = Image.open(page / "preview.png").size
    assert across > 4 * 96 and down > 4 * 96  # 21 images at 96 pixels, five in a row


def test_the_rehearsal_writes_nothing_and_the_run_trains_on_what_is_not_set_aside(said, page):
    assert "one step on fake data: loss" in of(said, "train", last=False)
    lines = [json.loads(line) for line in (page / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val/examples"] == 3 and lines[-1]["step"] == 5  # 21 images twice, in batches of 8
    log = of(said, "train")
    assert re.search(r"loaded +\d+ of \d+ arrays", log) and "resized  position: 1 + 2 x 2 -> 1 + 3 x 3" in log
    assert re.search(r"reset +head", log) and re.search(r"missing +none", log)


def test_the_model_follows_the_weights(said, page):
    saved = json.loads((page / "run" / "config.json").read_text())
    model = saved["model"]
    assert model["activation"] == "gelu_erf" and model["image_size"] == 48 and model["heads"] == 1


def test_evaluate_says_what_training_said_and_shows_it(said, page):
    lines = [json.loads(line) for line in (page / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = json.loads(of(said, "evaluate").splitlines()[-1])
    assert scores["val/examples"] == 3 and scores["val/top1"] == lines[-1]["val/top1"]
    assert 0 <= scores["val/top1_low"] <= scores["val/top1"] <= scores["val/top1_high"] <= 1
    report = html.unescape((page / "run" / "judged" / "report.html").read_text())
    assert all(name in report for name in ("cat", "dog", "owl"))


def test_the_table_and_the_picture_are_of_the_images_named(said, page):
    header, *rows = csv.reader((page / "predictions.csv").open())
    assert header == ["path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    assert [row[0] for row in rows] == [f"photos/cat/{i}.jpg" for i in range(8)]
    logits = np.load(page / "ours.npy").astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    names = ["cat", "dog", "owl"]
    for row, probability in zip(rows, expected, strict=True):
        found = dict(zip(row[1::2], map(float, row[2::2]), strict=True))
        np.testing.assert_allclose([found[name] for name in names], probability, atol=1e-5)
    assert Image.open(page / "attention.png").size == (2 * (4 * 48 + 4) + 4, 2 * (4 * 48 + 18) + 4)


def test_what_was_converted_to_timm_computes_the_same(said, page):
    ours, timms = np.load(page / "ours.npy"), np.load(page / "timms.npy")
    assert np.ptp(ours) > 0
    np.testing.assert_allclose(ours, timms, atol=1e-5)
    told = json.loads((page / "photos_timm" / "config.json").read_text())
    assert told["label_names"] == ["cat", "dog", "owl"]
    assert told["pretrained_cfg"]["mean"] == told["pretrained_cfg"]["std"] == [0.5] * 3  # what timm normalises by
