"""A training step of every row: traced at full size, and taken when shrunk."""

import math

import pytest

from tests.experiments import papers, recipes
from transformer_jax import experiment

PRETRAINING = [
    *(("vit/pretrain.py", papers.table_3(*row[:3]), papers.CLASSES[row[0]]) for row in papers.ROWS),
    *(
        ("vit/augreg.py", dict(model=model, data=data), papers.CLASSES[data])
        for data, models in papers.DEFAULTS.items()
        for model in models
    ),
    *(("vit/augreg.py", dict(papers.combination(c), model="S/16"), 1000) for c in papers.COMBINATIONS),
    *(("vit/plain.py", dict(ablate=ablate), 1000) for ablate in papers.ABLATIONS),
    ("vit/giant.py", dict(source="folder:mine"), 29_593),
]
ADDED = {"resisc45": 45, "kitti": 4}
FINETUNING = [
    *(
        ("transfer/finetune.py", dict(dataset=dataset, model=model), row[6])
        for dataset, row in papers.TABLE_4.items()
        for model in papers.MODELS
    ),
    *(("transfer/finetune.py", dict(dataset="cifar10", model=m), 10) for m in ("R50x1", "R50+B/16", "R26+S/32")),
    *(("transfer/finetune.py", dict(dataset=dataset, model="B/16"), classes) for dataset, classes in ADDED.items()),
    ("transfer/finetune.py", dict(dataset="oxford_iiit_pet", model="g/14", pool="map"), 37),
    *(("transfer/vtab.py", dict(task=task), row[3]) for task, row in papers.VTAB.items()),
]
# Every kind of row once; some ninety more tracings of one to eight seconds are for the slow tests.
QUICK = (
    *(papers.table_3("jft", *row) for row in (("B/16", 7), ("L/16", 14), ("H/14", 14), ("R50+B/16", 7), ("R50x1", 7))),
    papers.table_3("imagenet21k", "L/32", 90),
    dict(model="Ti/16", data="imagenet1k"),
    dict(model="L/16", data="imagenet21k"),
    dict(papers.combination(papers.COMBINATIONS[0]), model="S/16"),
    dict(ablate="original"),
    *(dict(dataset="imagenet2012", model=model) for model in papers.MODELS if model != "B/16"),
    dict(dataset="oxford_iiit_pet", model="g/14", pool="map"),
)
# One of every file with all of its own numbers; those of the others are made equal, so that they share programs.
OWN = (
    papers.table_3("imagenet1k", "B/16", 300),
    dict(papers.combination(papers.COMBINATIONS[-1]), model="S/16"),
    dict(ablate=""),
    dict(source="folder:mine"),
    dict(dataset="imagenet2012", model="B/16"),
    dict(task="dtd"),
)
HEADLINE = [
    ("transfer/finetune.py", dict(dataset="imagenet2012", model=model, size="headline"), 1000)
    for model in ("L/16", "H/14")
]


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


def name(file, arguments):
    return "-".join([file, *map(str, arguments.values())])


def traced(file, arguments, classes):
    marks = () if arguments in (*QUICK, *OWN) else pytest.mark.slow
    return pytest.param(file, arguments, classes, id=name(file, arguments), marks=marks)


def test_every_file_has_a_row_with_its_own_numbers():
    files = {file for file, arguments, _ in PRETRAINING + FINETUNING if arguments in OWN}
    assert files == {file for file, *_ in PRETRAINING + FINETUNING}
    assert all(any(arguments == found for _, found, _ in PRETRAINING + FINETUNING) for arguments in (*QUICK, *OWN))


@pytest.mark.parametrize("file, arguments, classes", [traced(*case) for case in PRETRAINING + FINETUNING])
def test_a_training_step_compiles_abstractly_at_full_size(file, arguments, classes, shared):
    settings, own = recipes.load(file, **arguments), arguments in OWN
    program, metrics = recipes.trace(settings, classes, shared, own=own)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == "float32"
    if own:
        for section, key in (("train", "mixup"), ("optim", "weight_decay"), ("model", "head_bias")):
            assert program.settings[section][key] == settings[section][key]


@pytest.mark.slow  # a compilation of some seconds each; tests/test_experiments.py steps one recipe of every kind
@pytest.mark.parametrize(
    "file, arguments",
    [pytest.param(*case[:2], id=name(*case[:2])) for case in PRETRAINING + FINETUNING + HEADLINE],
)
def test_shrunk_every_row_takes_a_step(file, arguments, shared):
    assert math.isfinite(recipes.step(recipes.shrink(recipes.load(file, **arguments)), shared))
