"""Every recipe: its header says where its number comes from, it is built, and stepped once when shrunk."""

import ast
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from tests.protocol import shrunk
from transformer_jax import config, experiment, protocol

ROOT = Path(__file__).parent.parent / "experiments"
FILES = sorted(p for p in ROOT.rglob("*.py") if "def get_config" in p.read_text())
PROTOCOLS = [p for p in FILES if p.name == "protocol.py"]
RECIPES = [p for p in FILES if p not in PROTOCOLS]
ARGUMENTS = {
    "finetune.py": [
        f"{target},{method}"
        for target in ("digits_50", "digits_100", "digits_300", "digits_all")
        for method in ("finetune", "scratch")
    ],
    "folder.py": ["{photos}", "{photos}/train,variant=Ti/32,size=64,epochs=3", "{photos},weights=B_16.npz"],
}
CASES = [(path, argument) for path in RECIPES for argument in ARGUMENTS.get(path.name, [""])]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of the layout PATH/train/CLASS, PATH/val/CLASS."""
    root = tmp_path_factory.mktemp("photos")
    for place in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (root / place).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(root / place / f"{i}.png")
    return root


def names(case):
    path, argument = case
    return f"{path.relative_to(ROOT)}:{argument}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_header_names_hardware_command_and_provenance(path):
    header = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "Hardware" in header and "Command" in header
    assert "UNVERIFIED" in header or "Measured" in header


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_recipe_resolves_to_known_settings_only(case, photos):
    path, argument = case
    settings = experiment.resolve(config.load(f"{path}:{argument.format(photos=photos)}"))
    assert experiment.resolve(ml_collections.ConfigDict(settings)) == settings


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_shrunk_recipe_takes_a_step_on_fake_data(case, photos):
    path, argument = case
    shrunk = {
        "model.depth": "1",
        "model.width": "16",
        "model.heads": "2",
        "model.mlp_dim": "32",
        "data.batch_size": "8",
    }
    settings = experiment.resolve(config.load(f"{path}:{argument.format(photos=photos)}"), shrunk)
    settings["init_from"] = None
    assert "one step on fake data: loss" in experiment.rehearse(settings)


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_protocol_resolves_every_experiment_it_will_run(path):
    settings = protocol.resolve(config.load(str(path)), {"seeds": "2"})
    assert settings["seeds"] == 2
    for target in settings["targets"].values():
        assert target["scratch"]["init_from"] is None and target["finetune"]["init_from"] is not None
        assert target["scratch"]["train"]["total"] >= 2 * target["finetune"]["train"]["total"]
        assert target["scratch"]["model"] == target["finetune"]["model"]


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_shrunk_protocol_runs_to_its_table_and_is_not_run_twice(path, tmp_path, capsys):
    settings = protocol.resolve(shrunk.shrink(config.load(str(path))))
    (first,) = settings["targets"]
    results = protocol.run(settings, tmp_path)
    assert set(results[first]) == {"finetune", "scratch", "probe"}
    assert results[first]["finetune"]["lr"] in (1e-3, 2e-3) and len(results[first]["finetune"]["runs"]) == 2
    for name in ("results.json", "results.md", "report.html", "accuracy.png"):
        assert (tmp_path / name).stat().st_size > 100
    capsys.readouterr()
    assert protocol.run(settings, tmp_path) == results
    assert "Starting at step 0" not in capsys.readouterr().out
