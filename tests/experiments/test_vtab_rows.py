"""VTAB-1k, task by task: source, splits, crops, labels and classes, written down again."""

import pathlib
import shlex

import pytest
import tensorflow_datasets

from tests.experiments import papers, recipes
from transformer_jax import config
from transformer_jax.data import tfds, vtab_labels


def test_vtab_has_nineteen_tasks_in_three_groups():
    settings = recipes.closed_loop("transfer/vtab_protocol.py", weights="L_16.npz", model="L/16")
    assert set(settings["targets"]) == set(papers.VTAB) and len(papers.VTAB) == 19
    groups = {
        group: [task for task, row in papers.VTAB.items() if row[-1] == group] for *_, group in papers.VTAB.values()
    }
    assert {group: list(tasks) for group, tasks in settings["groups"].items()} == groups
    assert [len(tasks) for tasks in groups.values()] == [7, 4, 8]


@pytest.mark.parametrize("task", papers.VTAB)
def test_every_task_of_vtab_is_what_its_recipe_resolves_to(task):
    source, dev, test, classes, changes, label, _ = papers.VTAB[task]
    settings = recipes.load("transfer/vtab.py", task=task)
    recipes.require_table_4(settings)
    assert recipes.get(settings, "train.total", "schedule.warmup", "schedule.base") == (2_500, 200, 0.01)
    assert settings["data"]["source"] == settings["evals"]["eval"]["source"] == f"tfds:{source}"
    assert settings["data"]["split"] == f"train[:800]+{dev}" and settings["evals"]["eval"]["split"] == test
    assert settings["model"]["num_classes"] == classes
    arguments = {} if label is None else {"label_function": label}
    assert settings["data"]["arguments"] == settings["evals"]["eval"]["arguments"] == arguments
    cropped = ["resize(448)", "random_crop(384)"] if "c" in changes else ["resize(384)"]
    flipped = ["flip_lr"] if "f" in changes else []
    assert recipes.stages(settings["data"]["preprocess"]) == ["decode", *cropped, *flipped, "value_range(-1, 1)"]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == ["decode", "resize(384)", "value_range(-1, 1)"]


@pytest.mark.parametrize("task", papers.VTAB)
def test_a_thousand_images_train_each_task_once_and_nothing_is_tuned(task):
    _, dev, test, *_ = papers.VTAB[task]
    settings = recipes.closed_loop("transfer/vtab_protocol.py")
    target = settings["targets"][task]
    assert recipes.get(target, "train", "dev", "final", "test") == ("train[:800]", dev, f"train[:800]+{dev}", test)
    assert (settings["seeds"], tuple(target["finetune_grid"])) == (1, (0.01,))


def test_the_label_functions_make_as_many_classes_as_the_tasks_have():
    labels = vtab_labels.LABELS
    module = config.module(recipes.ROOT / "transfer/vtab.py")
    assert {task: module.TASKS[task].classes for task in papers.VTAB} == {
        task: row[3] for task, row in papers.VTAB.items()
    }
    for row in papers.VTAB.values():
        assert row[5] is None or len(labels[row[5]].class_names) == row[3]
    assert set(labels) == {row[5] for row in papers.VTAB.values()} - {None}


def sources():
    """Every TFDS name of a recipe of transfer/, and the classes it should have where a label is a class."""
    vtab = {source: classes for source, _, _, classes, _, label, _ in papers.VTAB.values() if label is None}
    named = {source: None for source, *_ in papers.VTAB.values()} | vtab
    tables = {dataset: row[6] for dataset, row in papers.TABLE_4.items()} | dict.fromkeys(papers.ADDED)
    suite = dict.fromkeys(source.removeprefix("tfds:") for source, *_ in papers.FEWSHOT.values())
    return suite | named | tables | {"imagenet_v2": 1000, "imagenet2012_real": None}


@pytest.mark.parametrize("name", sources())
def test_the_installed_tfds_has_every_data_set_at_its_pinned_version(name, tmp_path):
    builder = tensorflow_datasets.builder(name, data_dir=tmp_path)
    classes = sources()[name]
    assert classes is None or builder.info.features["label"].num_classes == classes


@pytest.mark.parametrize("name", ["clevr:3.*.*", "sun397/tfds:4.*.*"])
def test_the_command_that_prepares_a_data_set_is_one_a_shell_takes_as_it_is(name, tmp_path):
    folder = tmp_path / "my data"
    command = tfds.missing(name, (), data_dir=str(folder)).partition("&& ")[2]
    assert shlex.split(command) == ["tfds", "build", name, "--file_format=array_record", f"--data_dir={folder}"]
    assert f"'{name}'" in command  # or the shell would look for files of that name


def test_commands_for_our_own_data_and_for_other_formats_are_quoted_too(tmp_path):
    folder = tmp_path / "my data"
    command = tfds.missing("digits", (), data_dir=str(folder)).partition("Prepare it: ")[2]
    assert shlex.split(command)[-2:] == ["--data-dir", str(folder)]
    version = pathlib.Path(folder / "cifar10" / "3.0.2")
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    command = tfds.missing("cifar10", (), data_dir=str(folder)).partition("&& ")[2]
    assert f"--dataset_version_dir={version}" in shlex.split(command)
