"""The verbs as a person types them, on a generated folder of images."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from transformer_jax.cli import main

AS_HERE = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}  # what one process compiles the others find
RECIPE = """
import ml_collections

def get_config(path):
    evaluation = dict(source=f"folder:{path}", split="val", preprocess="decode | resize(8) | value_range(-1, 1)")
    return ml_collections.ConfigDict(dict(
        name="folder",
        model=dict(name="vit", variant=None, width=16, depth=1, heads=2, mlp_dim=16, patch=4, image_size=8),
        data=dict(source=f"folder:{path}", split="train", batch_size=8,
                  preprocess="decode | inception_crop(8) | flip_lr | value_range(-1, 1)"),
        optim=dict(name="sgd"),
        schedule=dict(name="constant", base=0.1),
        train=dict(total=3, log_every=1),
        evals=dict(val=dict(batch_size=8, **evaluation)),
    ))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty small JPEGs of two colours: 30 to train, 10 to judge."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 15), ("val", 5)):
        for label, colour in (("blue", (40, 60, 200)), ("red", (200, 50, 40))):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (24, 32, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg")
    (root / "recipe.py").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def run(photos):
    """The folder trained for three steps from the command line."""
    workdir = photos / "run"
    assert main.main(["train", "--config", f"{photos}/recipe.py:{photos}", "--workdir", str(workdir)]) == 0
    return workdir


def test_a_folder_of_images_trains_and_evaluates_with_its_classes_inferred(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val/examples"] == 10 and lines[-1]["step"] == 3


def test_evaluate_prints_one_json_object(run, photos, capsys):
    words = ["evaluate", "--config", f"{photos}/recipe.py:{photos}", "--checkpoint", str(run)]
    assert main.main(words) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scores["val/examples"] == 10 and 0 <= scores["val/top1"] <= 1


def test_predict_names_the_classes_and_files_agree_with_arrays(run, photos, tmp_path, capsys):
    image = photos / "val" / "red" / "0.jpg"
    assert main.main(["predict", "--checkpoint", str(run), str(image), "--logits", str(tmp_path / "a.npy")]) == 0
    line = capsys.readouterr().out
    assert line.startswith(str(image)) and "red 0." in line and "blue 0." in line
    pixels = np.asarray(Image.open(image).resize((8, 8), Image.Resampling.BILINEAR), np.float32)[None] / 127.5 - 1
    np.save(tmp_path / "x.npy", pixels)
    words = ["predict", "--checkpoint", str(run), "--array", f"{tmp_path}/x.npy", "--logits", f"{tmp_path}/b.npy"]
    assert main.main(words) == 0
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), atol=2e-2)


@pytest.mark.parametrize(
    "words, message",
    [
        (["no/such.jpg"], "no/such.jpg do not exist"),
        ([], "image files or --array"),
        (["--array", "missing.npy"], "'missing.npy' does not exist"),
    ],
)
def test_predict_explains_bad_input(run, words, message, capsys):
    assert main.main(["predict", "--checkpoint", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_inspect_prints_every_leaf(run, capsys):
    assert main.main(["inspect", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["step"] == 3 and facts["format"] == "orbax" and facts["config"]["name"] == "folder"
    leaf = facts["leaves"]["params/blocks/0/mlp/up/kernel"]
    assert leaf["shape"] == [16, 16] and leaf["dtype"] == "float32" and len(leaf["sha256"]) == 64
    assert main.main(["inspect", str(run)]) == 0
    assert "params/blocks/0/mlp/up/kernel" in capsys.readouterr().out


def test_bench_measures_the_step(photos, capsys):
    words = ["bench", "--config", f"{photos}/recipe.py:{photos}", "--steps", "2"]
    for more, kind in ([], "train"), (["--fake-data", "--config.model.num_classes=2", "--inference"], "predict"):
        assert main.main([*words, *more]) == 0
        facts = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert facts["kind"] == kind and facts["step_seconds"] > 0 and facts["mfu"] is None
        assert (facts["data_wait_seconds"] is None) == ("--fake-data" in more)


def test_a_dry_run_prints_the_configuration_and_writes_nothing(photos, tmp_path, capsys):
    words = ["train", "--config", f"{photos}/recipe.py:{photos}", "--workdir", str(tmp_path / "run"), "--dry-run"]
    assert main.main(words) == 0
    assert "one step on fake data: loss" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_data_preview_writes_a_contact_sheet(tmp_path, capsys):
    words = [
        "data",
        "preview",
        "digits",
        "--count",
        "4",
        "--preprocess",
        "resize(16)",
        "--out",
        f"{tmp_path}/sheet.png",
    ]
    assert main.main(words) == 0
    assert Image.open(tmp_path / "sheet.png").size[0] > 32
    assert main.main(["data", "list"]) == 0
    assert "glyphs" in capsys.readouterr().out


def test_data_preview_passes_arguments_to_the_source(photos, tmp_path, capsys):
    out = ["--preprocess", "decode | resize(8)", "--out", f"{tmp_path}/sheet.png"]
    flat = ["data", "preview", f"folder:{photos}/train", "--split", "val", "--count", "64", *out]
    assert main.main([*flat, "--argument", "val_fraction=0.2"]) == 0
    assert Image.open(tmp_path / "sheet.png").size == (3 * 100 + 4, 2 * 114 + 4)  # 3 of 15 set aside in each of two
    assert main.main(flat) == 2
    assert "val_fraction=0.1" in capsys.readouterr().err
    for wrong in ("val_fraction", "split=train"):
        assert main.main([*flat, "--argument", wrong]) == 2
        assert f"such as labels=50, not '{wrong}'" in capsys.readouterr().err


def test_doctor_passes_here(tmp_path, capsys):
    assert main.main(["doctor", "--workdir", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert "FAIL" not in report and "jax " in report


def test_training_from_plain_python_never_imports_tensorflow(photos, tmp_path):
    code = f"""
import sys
sys.modules["tensorflow"] = None  # an import of it would raise
from transformer_jax import config, experiment
settings = experiment.resolve(config.load({str(photos / "recipe.py")!r} + ":" + {str(photos)!r}))
experiment.train(settings, {str(tmp_path / "run")!r})
assert sys.modules["tensorflow"] is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=240, env=AS_HERE)


def test_sigterm_saves_and_exits_143(photos, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "transformer_jax", "train", "--config", f"{photos}/recipe.py:{photos}"]
    command += ["--workdir", str(workdir), "--config.train.total=1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=AS_HERE)
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + 240
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size > 0):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output.decode()[-2000:]
    saved = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    assert len(saved) == 1
