"""Fine-tuning, row by row: the numbers of the papers, written down again, are what the recipe resolves to."""

import pytest

from tests.experiments import papers, recipes
from transformer_jax import config, experiment, types
from transformer_jax.optim import schedules


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


@pytest.mark.parametrize("model", papers.MODELS)
@pytest.mark.parametrize("dataset", papers.TABLE_4)
def test_every_row_of_table_4_is_what_its_recipe_resolves_to(dataset, model):
    steps, warmup, _, _, _, test, _, crop = papers.TABLE_4[dataset]
    settings = recipes.load("transfer/finetune.py", dataset=dataset, model=model)
    recipes.require_table_4(settings)
    assert recipes.get(settings, "data.source", "evals.eval.source") == (f"tfds:{dataset}",) * 2
    assert recipes.get(settings, "train.total", "schedule.warmup", "evals.eval.split") == (steps, warmup, test)
    assert recipes.get(settings, "model.variant", "train.average") == (model, None)
    assert recipes.get(settings, "model.pre_logits", "model.dropout") == (False, 0.0)
    # 27 patches of 14 are 378 pixels: the middle of what the other models see
    size, cut = (378, ["central_crop(378)"]) if model == "H/14" else (384, [])
    assert settings["model"]["image_size"] == size
    assert recipes.stages(settings["data"]["preprocess"]) == [*papers.CROPS[crop][:-1], *cut, papers.CROPS[crop][-1]]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == [*papers.JUDGED[:-1], *cut, papers.JUDGED[-1]]


def test_whether_flowers_takes_its_validation_split_is_a_flag():
    split = {
        flag: recipes.load("transfer/finetune.py", dataset="oxford_flowers102", validation=flag)["data"]["split"]
        for flag in ("yes", "no")
    }
    assert split == {"yes": "train+validation", "no": "train"}
    target = recipes.closed_loop("transfer/protocol.py", validation="no")["targets"]["oxford_flowers102"]
    assert target["final"] == "train"


@pytest.mark.parametrize("model, size, large, grid", [("L/16", 512, 597, 32), ("H/14", 518, 604, 37)])
def test_the_headline_has_its_size_and_the_polyak_average(model, size, large, grid, shared):
    settings = recipes.load("transfer/finetune.py", dataset="imagenet2012", model=model, size="headline")
    recipes.require_table_4(settings)
    assert recipes.get(settings, "model.image_size", "train.average", "train.total") == (size, 0.9999, 20_000)
    assert recipes.stages(settings["data"]["preprocess"]) == [
        "decode(reduce=False)",
        f"inception_crop({size})",
        "flip_lr",
        "value_range(-1, 1)",
    ]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == [
        "decode",
        f"resize_small({large})",
        f"central_crop({size})",
        "value_range(-1, 1)",
    ]
    program, _ = recipes.trace(settings, 1000, shared)
    assert program.model.config.grid == (grid, grid)
    assert program.abstract.average is not None


def test_the_headline_is_of_two_models_on_imagenet():
    with pytest.raises(types.InputError, match="model of the headline must be one of L/16, H/14: it is 'B/16'"):
        recipes.load("transfer/finetune.py", dataset="imagenet2012", size="headline")
    with pytest.raises(types.InputError, match="dataset of the headline must be one of imagenet2012"):
        recipes.load("transfer/finetune.py", dataset="cifar10", model="L/16", size="headline")


@pytest.mark.parametrize("steps, warmup", [(500, 100), (2_500, 200), (10_000, 500), (20_000, 500)])
def test_the_warm_up_follows_the_length(steps, warmup):
    settings = recipes.load("transfer/finetune.py", dataset="cifar100", steps=steps)
    rate = schedules.build(**settings["schedule"], total_steps=steps)
    assert settings["schedule"]["warmup"] == warmup
    assert [rate(warmup // 2), rate(warmup), rate(steps)] == pytest.approx([0.005, 0.01, 0.0])


@pytest.mark.parametrize("dataset", papers.ADDED)
def test_the_rows_that_augreg_adds_are_what_their_recipe_resolves_to(dataset):
    steps, warmup, _, _, _, final, test, crop = papers.ADDED[dataset]
    settings = recipes.load("transfer/finetune.py", dataset=dataset)
    recipes.require_table_4(settings)
    assert recipes.get(settings, "train.total", "schedule.warmup") == (steps, warmup)
    assert recipes.get(settings, "data.split", "evals.eval.split") == (final, test)
    assert recipes.stages(settings["data"]["preprocess"]) == papers.CROPS[crop]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == papers.SQUASHED
    label = {"label_function": "kitti_closest_vehicle_distance"} if dataset == "kitti" else {}
    assert settings["data"]["arguments"] == settings["evals"]["eval"]["arguments"] == label


@pytest.mark.parametrize("dataset", papers.RATES)
def test_the_rate_of_every_row_unless_it_is_tuned(dataset):
    module = config.module(recipes.ROOT / "transfer/finetune.py")
    assert set(module.DATASETS) == set(papers.RATES)
    assert recipes.load("transfer/finetune.py", dataset=dataset)["schedule"]["base"] == papers.RATES[dataset]


@pytest.mark.parametrize(
    "file, argument, value, wanted",
    [
        ("transfer/finetune.py", "size", "abc", "a whole number"),
        ("transfer/finetune.py", "size", "-16", "a whole number"),
        ("transfer/finetune.py", "steps", "many", "a whole number"),
        ("transfer/finetune.py", "rate", "fast", "a number"),
        ("transfer/vtab.py", "size", "big", "a whole number"),
        ("transfer/fewshot.py", "size", "abc", "a whole number"),
        ("transfer/imagenet.py", "size", "abc", "a whole number"),
        ("transfer/protocol.py", "fewshot_size", "abc", "a whole number"),
    ],
)
def test_an_argument_that_is_no_number_is_named(file, argument, value, wanted):
    with pytest.raises(types.InputError, match=f"{argument} must be {wanted} above 0: it is '{value}'"):
        recipes.load(file, **{argument: value})


def test_a_resnet_has_nothing_to_pool_and_no_hidden_layer():
    with pytest.raises(types.InputError, match="A BiT ResNet has no tokens to pool.*: pool is 'gap'. Leave pool out"):
        recipes.load("transfer/finetune.py", model="R50x1", pool="gap")
    with pytest.raises(types.InputError, match="pool is 'map'"):
        recipes.load("transfer/imagenet.py", model="R50x1", pool="map")
    with pytest.raises(types.InputError, match="hidden is 'yes'. Leave hidden out"):
        recipes.load("transfer/fewshot.py", model="R50x1", hidden="yes")
