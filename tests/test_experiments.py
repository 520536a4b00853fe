"""Every recipe: its header says where its number comes from, it is built, and stepped once when shrunk."""

import ast
import json
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from tests.experiments import recipes
from tests.protocol import recompute, shrunk
from transformer_jax import config, experiment, protocol

ROOT = Path(__file__).parent.parent / "experiments"
FILES = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if "def get_config" in p.read_text())
PROTOCOLS = {
    "digits/protocol.py": [""],
    "transfer/augreg_protocol.py": ["", "weights=S_16.npz,model=S/16,size=224,datasets=kitti+cifar100"],
    "transfer/protocol.py": [
        "weights=B_16.npz",
        "weights=L_16.npz,model=L/16,size=headline,datasets=imagenet2012,judges=real+v2,fewshot=",
        "weights=H_14.npz,model=H/14,size=headline,datasets=table4+vtab,fewshot=cifar100,fewshot_size=384",
    ],
    "transfer/vtab_protocol.py": ["", "weights=runs/giant,model=g/14,pool=map"],
    "vit/protocol.py": [
        "",
        "model=H/14,data=jft,source=tfds:mine,fewshot=cifar100+dtd",
        "model=R50x1,data=jft,source=tfds:mine",
        "model=L/16,size=headline,datasets=table4+vtab,fewshot=public",
        "recipe=augreg,model=S/16,augment=medium1,regularise=both,weight_decay=0.03",
        "recipe=augreg,data=imagenet21k,epochs=30,datasets=imagenet2012",
        "recipe=plain,epochs=90,datasets=cifar10",
        "recipe=giant,source=tfds:mine,datasets=imagenet2012+vtab",
    ],
}
RECIPES = {
    "digits/pretrain.py": [""],
    "digits/finetune.py": [
        f"{target},{method}"
        for target in ("digits_50", "digits_100", "digits_300", "digits_all")
        for method in ("finetune", "scratch")
    ],
    "transfer/fewshot.py": ["", "datasets=imagenet2012,model=H/14,hidden=yes,kind=knn", "datasets=dtd,kind=probe"],
    "transfer/finetune.py": [
        "",
        "dataset=imagenet2012,model=L/16,weights=L_16.npz,size=headline,judges=real+v2",
        "dataset=oxford_flowers102,model=R50+B/16,rate=0.01,steps=2500,validation=no",
        "dataset=kitti,model=R50x1",
    ],
    "transfer/folder.py": ["{photos}", "{photos}/train,variant=Ti/32,size=64,epochs=3", "{photos},weights=B_16.npz"],
    "transfer/imagenet.py": ["", "model=H/14,judges=val+r+a+sketch,folders=/data,hidden=yes"],
    "transfer/vtab.py": ["", "task=dsprites_orientation,model=L/16,weights=L_16.npz"],
    "vit/augreg.py": ["", "model=S/16,data=imagenet21k,epochs=30,augment=strong2,regularise=both,weight_decay=0.03"],
    "vit/giant.py": ["source=tfds:mine"],
    "vit/plain.py": ["", "epochs=300,ablate=original,judges=real+v2"],
    "vit/pretrain.py": [
        "",
        "model=L/16,data=jft,epochs=14,source=tfds:mine,fewshot=cifar100+dtd",
        "model=B/32,data=imagenet1k",
        "model=R50+B/16,data=jft,source=folder:mine",
        "model=R50x1,data=jft,source=folder:mine",
    ],
}
CASES = [f"{file}:{arguments}" for file, several in RECIPES.items() for arguments in several]
AT_HAND = ("digits/", "transfer/folder.py")
# Of the others one of every file and kind of model; tests/experiments steps all rows, which is slow.
STEPPED = [
    *(f"{file}:{several[0]}" for file, several in RECIPES.items() if not file.startswith(AT_HAND)),
    *(case for case in CASES if case.startswith("vit/pretrain.py:model=R")),
]
# These cost six seconds and more and show little that others do not: the digits are rehearsed by the loop below.
COSTLY = ("digits/", "transfer/folder.py:{photos}/train", "vit/plain.py", "vit/pretrain.py:model=R50+B/16")
LOOPS = [f"{file}:{arguments}" for file, several in PROTOCOLS.items() for arguments in several]


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


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


def load(case, photos=""):
    return config.load(f"{ROOT}/{case.format(photos=photos)}")


def affordable(cases):
    """The cases, those that cost much for the slow tests."""
    return [pytest.param(case, marks=pytest.mark.slow) if case.startswith(COSTLY) else case for case in cases]


def test_every_file_is_tested_with_arguments_of_its_own():
    assert sorted([*RECIPES, *PROTOCOLS]) == FILES
    assert all([*RECIPES.values(), *PROTOCOLS.values()])


@pytest.mark.parametrize("file", FILES)
def test_the_header_names_hardware_command_and_provenance(file):
    header = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
    assert "Hardware" in header and "Command" in header
    assert "UNVERIFIED" in header or "Measured" in header


@pytest.mark.parametrize("file", FILES)
def test_the_commands_of_the_header_load(file):
    """Words after the file of a `--config` are arguments it takes."""
    header = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
    words = [word for word in header.partition("Command")[2].split() if word.startswith("experiments/")]
    assert words
    for word in words:
        file, _, arguments = word.partition(":")
        if "photos" not in arguments:  # a folder that is not there
            config.load(f"{ROOT.parent / file}:{arguments}")


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_resolves_to_known_settings_only(case, photos):
    settings = experiment.resolve(load(case, photos))
    assert experiment.resolve(ml_collections.ConfigDict(settings)) == settings


@pytest.mark.parametrize("case", CASES)
def test_every_preprocessing_of_a_recipe_parses(case, photos):
    settings = experiment.resolve(load(case, photos))
    assert all(recipes.stages(section["preprocess"]) for section in (settings["data"], *settings["evals"].values()))


@pytest.mark.parametrize("case", affordable(STEPPED))
def test_a_shrunk_recipe_takes_a_step_on_fake_data(case, shared):
    settings = recipes.shrink(experiment.resolve(load(case)))
    assert np.isfinite(recipes.step(settings, shared))


@pytest.mark.parametrize("case", affordable(case for case in CASES if case.startswith(AT_HAND)))
def test_a_shrunk_recipe_whose_data_is_at_hand_is_rehearsed(case, photos, shared):
    small = {**{f"model.{name}": str(value) for name, value in recipes.SMALL.items()}, "data.batch_size": "8"}
    settings = experiment.resolve(load(case, photos), small)
    settings["init_from"] = None
    assert "one step on fake data: loss" in experiment.rehearse(settings, shared=shared)


@pytest.mark.parametrize("case", LOOPS)
def test_a_protocol_resolves_every_experiment_it_will_run(case):
    settings = protocol.resolve(load(case), {"seeds": "2"})
    assert settings["seeds"] == 2
    for target in settings["targets"].values():
        assert target["finetune"]["init_from"] is not None and len(target["finetune_grid"]) > 0
        if target["scratch"] is not None:
            assert target["scratch"]["init_from"] is None
            assert target["scratch"]["train"]["total"] >= 2 * target["finetune"]["train"]["total"]
            assert target["scratch"]["model"] == target["finetune"]["model"]


def test_a_shrunk_protocol_runs_to_its_table_once_and_its_numbers_are_those_of_its_predictions(tmp_path, capsys):
    settings = protocol.resolve(shrunk.shrink(load("digits/protocol.py")))
    (first,) = settings["targets"]
    results = protocol.run(settings, tmp_path)
    target = results["targets"][first]
    assert set(target) == {"finetune", "scratch", "probe"} and len(target["finetune"]["runs"]) == 2
    assert set(results["pretrained"]) == {
        *("fewshot/1shot", "fewshot/2shot", "knn/10nn", "knn/20nn", "real/top1", "real/examples")
    }
    assert (tmp_path / f"{first}_loss.png").stat().st_size > 100
    capsys.readouterr()
    assert protocol.run(settings, tmp_path) == results
    assert "Starting at step 0" not in capsys.readouterr().out

    saved, again = json.loads((tmp_path / "results.json").read_text()), recompute.results(tmp_path, settings["groups"])
    assert saved == results and recompute.differences(saved, again) == []
    assert set(saved["groups"]) == {"one", "all"} and set(target["finetune"]["others"]) == {"again/top1"}
    assert recompute.missing_from_report((tmp_path / "report.html").read_text(), again) == []
    file = tmp_path / first / "finetune" / "seed_1" / "predictions" / "eval.npz"
    rows = dict(np.load(file))
    np.savez(file, **{**rows, "predicted": np.roll(rows["predicted"], 1) + 1})
    assert recompute.differences(saved, recompute.results(tmp_path)), "predictions that are others are found"
