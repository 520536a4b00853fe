"""The closed loops: targets, grids, splits and what picks, written down again."""

import itertools

import pytest

from tests.experiments import papers, recipes
from transformer_jax import types


@pytest.mark.parametrize("dataset", papers.TABLE_4)
def test_the_protocol_tunes_each_row_on_its_grid_and_splits(dataset):
    _, _, grid, train, dev, test, _, _ = papers.TABLE_4[dataset]
    settings = recipes.closed_loop("transfer/protocol.py", weights="B_16.npz")
    assert set(settings["targets"]) == set(papers.TABLE_4) and settings["seeds"] == 3
    target = settings["targets"][dataset]
    assert tuple(target["finetune_grid"]) == grid
    final = "train+validation" if dataset == "oxford_flowers102" else "train"
    assert recipes.get(target, "train", "dev", "final", "test") == (train, dev, final, test)
    assert target["scratch"] is None and target["finetune"]["init_from"]["path"] == "B_16.npz"


@pytest.mark.parametrize("data, weights", [("imagenet21k", "L/16"), ("imagenet1k", "B/32")])
def test_the_whole_paper_pretrains_and_then_fine_tunes_all_of_table_4(data, weights):
    settings = recipes.closed_loop("vit/protocol.py", model=weights, data=data)
    assert set(settings["targets"]) == set(papers.TABLE_4) and settings["weights"] is None
    assert settings["pretrain"] == recipes.load("vit/pretrain.py", model=weights, data=data)
    for dataset, target in settings["targets"].items():
        judges = {"judges": "real"} if dataset == "imagenet2012" else {}
        told = dict(dataset=dataset, model=weights, pool="tok", **judges)
        assert target["finetune"] == recipes.load("transfer/finetune.py", **told)


@pytest.mark.parametrize("dataset", papers.AUGREG)
def test_augreg_tries_its_rates_and_lengths(dataset):
    rates, lengths = papers.AUGREG[dataset]
    settings = recipes.closed_loop("transfer/augreg_protocol.py", weights="B_16.npz")
    assert set(settings["targets"]) == set(papers.AUGREG)
    target = settings["targets"][dataset]
    tried = {
        (choice["schedule.base"], choice["train.total"], choice["schedule.warmup"])
        for choice in target["finetune_grid"]
    }
    assert tried == {(rate, *length) for rate, length in itertools.product(rates, lengths)}
    assert len(target["finetune_grid"]) == len(tried)
    assert target["select"] == ("v2/top1" if dataset == "imagenet2012" else "eval/top1")
    recipes.require_table_4(target["finetune"])


@pytest.mark.parametrize("size, resized", [(224, 256), (384, 448)])
def test_augreg_fine_tunes_at_two_sizes(size, resized):
    settings = recipes.closed_loop("transfer/augreg_protocol.py", size=size, datasets="imagenet2012")
    recipe = settings["targets"]["imagenet2012"]["finetune"]
    assert recipe["model"]["image_size"] == size
    for name in ("eval", "v2"):
        assert recipes.stages(recipe["evals"][name]["preprocess"]) == [
            "decode",
            f"resize_small({resized})",
            f"central_crop({size})",
            "value_range(-1, 1)",
        ]


def test_augreg_tries_four_rates_and_two_lengths_on_every_task_of_vtab():
    targets = recipes.closed_loop("transfer/augreg_protocol.py", datasets="kitti+vtab")["targets"]
    assert set(targets) == {"kitti", *(f"vtab_{task}" for task in papers.VTAB)}
    tried = [tuple(choice.values()) for choice in targets["vtab_dtd"]["finetune_grid"]]
    wanted = itertools.product((0.001, 0.003, 0.01, 0.03), ((500, 100), (2_500, 200)))
    assert set(tried) == {(rate, *length) for rate, length in wanted} and len(tried) == 8


@pytest.mark.parametrize("dataset", papers.ADDED)
def test_the_rows_that_augreg_adds_are_tuned_on_their_splits(dataset):
    *_, grid, train, dev, final, test, _ = papers.ADDED[dataset]
    target = recipes.closed_loop("transfer/protocol.py", datasets=dataset)["targets"][dataset]
    assert tuple(target["finetune_grid"]) == grid
    assert recipes.get(target, "train", "dev", "final", "test") == (train, dev, final, test)


# Table 2 of the ViT paper: six data sets and VTAB-1k; ImageNet-1k alone is larger and averaged.
HEADLINE = [
    ("transfer/protocol.py", dict(model="L/16", weights="L_16.npz"), 512, 384),
    ("transfer/protocol.py", dict(model="H/14", weights="H_14.npz"), 518, 378),
    ("vit/protocol.py", dict(model="L/16", data="imagenet21k"), 512, 384),
]


@pytest.mark.parametrize("file, arguments, large, usual", HEADLINE)
def test_the_headline_and_vtab_run_through_the_loop(file, arguments, large, usual):
    settings = recipes.closed_loop(file, size="headline", datasets="table4+vtab", **arguments)
    tasks = {f"vtab_{task}": row[-1] for task, row in papers.VTAB.items()}
    assert set(settings["targets"]) == {*papers.TABLE_4, *tasks} and settings["seeds"] == 3
    for name, target in settings["targets"].items():
        size, average = (large, 0.9999) if name == "imagenet2012" else (usual, None)
        assert recipes.get(target["finetune"], "model.image_size", "train.average") == (size, average)
        assert target["seeds"] is None
    groups = {group: tuple(task for task, of in tasks.items() if of == group) for group in tasks.values()}
    assert settings["groups"] == {**groups, "vtab": tuple(tasks)}
    sources = {task: settings["targets"][task]["finetune"]["data"]["source"] for task in ("cifar100", "vtab_cifar100")}
    assert sources == {"cifar100": "tfds:cifar100", "vtab_cifar100": "tfds:cifar100:3.*.*"}
    assert tuple(settings["targets"]["vtab_cifar100"]["finetune_grid"]) == (0.01,)


def test_the_data_sets_of_a_loop_are_those_it_is_given():
    for file in ("vit/protocol.py", "transfer/protocol.py"):
        settings = recipes.closed_loop(file, datasets="cifar10+imagenet2012", judges="real+v2")
        assert list(settings["targets"]) == ["cifar10", "imagenet2012"] and settings["groups"] == {}
        assert set(settings["targets"]["imagenet2012"]["finetune"]["evals"]) == {"eval", "real", "v2"}
        with pytest.raises(types.InputError, match="datasets must be one of imagenet2012, .*, vtab, table4: it is 'mn"):
            recipes.closed_loop(file, datasets="cifar10+mnist")


# recipe, its own arguments, what its targets pool and where their positions come from
PAPERS = [
    ("pretrain", dict(model="L/32", data="imagenet21k", epochs="90"), "tok", None),
    ("augreg", dict(model="S/16", augment="medium1", regularise="both"), "tok", None),
    ("augreg", dict(model="B/16", data="imagenet21k", epochs="30"), "gap", None),
    ("plain", dict(epochs="150"), "gap", "sincos2d"),
    ("plain", dict(ablate="original"), "tok", "learned"),
    ("giant", dict(source="tfds:mine"), "map", None),
]


@pytest.mark.parametrize("recipe, arguments, pool, position", PAPERS)
def test_every_recipe_is_pretrained_and_fine_tuned_by_the_loop(recipe, arguments, pool, position):
    settings = recipes.closed_loop("vit/protocol.py", recipe=recipe, **arguments)
    assert settings["pretrain"] == recipes.load(f"vit/{recipe}.py", **arguments) and settings["weights"] is None
    assert set(settings["targets"]) == set(papers.AUGREG if recipe == "augreg" else papers.TABLE_4)
    for name, target in settings["targets"].items():
        wanted = (settings["pretrain"]["model"]["variant"], pool, position)
        assert recipes.get(target["finetune"], "model.variant", "model.pool", "model.position") == wanted
        recipes.require_table_4(target["finetune"])
        augreg = recipe == "augreg"
        assert len(target["finetune_grid"]) == ((2 if name == "imagenet2012" else 6) if augreg else 4)
        assert target["select"] == ("v2/top1" if augreg and name == "imagenet2012" else "eval/top1")


def test_a_recipe_or_an_argument_it_does_not_take_is_refused():
    with pytest.raises(types.InputError, match="recipe must be one of pretrain, augreg, plain, giant: it is 'plan'"):
        recipes.closed_loop("vit/protocol.py", recipe="plan")
    with pytest.raises(types.InputError, match="does not fit get_config.*unexpected keyword argument 'augment'"):
        recipes.closed_loop("vit/protocol.py", recipe="plain", augment="light1")
