"""Pretraining by the ViT paper, row by row: its numbers, written down again, are what the recipe resolves to."""

import itertools

import pytest

from tests.experiments import papers, recipes
from transformer_jax import config, experiment, types


def pretrain(*row):
    return recipes.load("vit/pretrain.py", **papers.table_3(*row))


def row_name(row):
    return "-".join(map(str, row[:3])) if isinstance(row, tuple) else None


@pytest.mark.parametrize("row", papers.ROWS, ids=row_name)
def test_every_row_of_table_3_is_what_its_recipe_resolves_to(row):
    data, model, epochs, base, decay, weight_decay, dropout, thousands = row
    settings = pretrain(data, model, epochs)
    assert recipes.get(settings, "model.variant", "model.image_size", "data.batch_size") == (model, 224, 4096)
    assert recipes.get(settings, "schedule.name", "schedule.base", "schedule.warmup") == (decay, base, 10_000)
    assert recipes.get(settings, "optim.weight_decay", "optim.clip_norm") == (weight_decay, 1.0)
    assert recipes.get(settings, "optim.b1", "optim.b2", "train.mixup", "train.average") == (0.9, 0.999, 0.0, None)
    assert settings["optim"]["name"] in ("adam", "adamw")  # two names of the same
    assert settings["train"]["loss"] == "sigmoid"
    assert settings["model"]["head_bias"] == (-6.9 if data == "imagenet1k" else -10)
    if "x" not in model:
        assert recipes.get(settings, "model.dropout", "model.stochastic_depth") == (dropout, 0.0)
        assert recipes.get(settings, "model.pre_logits", "model.pool") == (True, "tok")
    # the paper's number of images and the batch make its number of steps
    assert recipes.length(settings, papers.IMAGES[data]) / 1000 == pytest.approx(thousands, rel=1e-3)


@pytest.mark.parametrize("data", papers.TABLE_3)
def test_the_recipe_has_no_other_rows(data):
    module = config.module(recipes.ROOT / "vit/pretrain.py")
    rows = {
        (model, int(epochs))
        for row in module.TABLE
        if row.data == data
        for model, epochs in itertools.product(row.models.split(), row.epochs.split())
    }
    assert rows == {row[:2] for row in papers.TABLE_3[data]}


@pytest.mark.parametrize(
    "data, model, end", [("jft", "B/16", 1e-5), ("imagenet21k", "L/16", 1e-5), ("imagenet1k", "B/16", 0)]
)
def test_the_rate_rises_for_10k_steps_and_falls_to_its_end(data, model, end):
    settings = pretrain(data, model, "")
    base, last = settings["schedule"]["base"], recipes.length(settings, papers.IMAGES[data])
    rate = {
        step: recipes.rate(settings, step, papers.IMAGES[data]) for step in (5_000, 10_000, (10_000 + last) // 2, last)
    }
    assert list(rate.values()) == pytest.approx([base / 2, base, (base + end) / 2, end], rel=1e-4, abs=1e-12)


def test_crops_flips_and_nothing_else():
    for data in papers.TABLE_3:
        settings = pretrain(data, "B/16", "")
        assert recipes.stages(settings["data"]["preprocess"]) == papers.PRETRAINED
        assert recipes.stages(settings["evals"]["val"]["preprocess"]) == papers.PRETRAINED_JUDGED


def test_the_header_says_that_a_small_folder_needs_a_shorter_warm_up():
    assert "a small folder needs a shorter" in config.module(recipes.ROOT / "vit/pretrain.py").__doc__


def test_the_splits_are_those_of_big_vision():
    def splits(data):
        return recipes.get(pretrain(data, "B/16", ""), "data.source", "data.split", "evals.val.split")

    assert splits("imagenet21k") == ("tfds:imagenet21k", "full[51200:]", "full[25600:51200]")
    assert splits("imagenet1k") == ("tfds:imagenet2012", "train[:99%]", "validation")


def test_data_nobody_can_download_must_be_named():
    for recipe, name in (
        (recipes.load("vit/pretrain.py", data="jft"), "JFT-300M"),
        (recipes.load("vit/giant.py"), "JFT-3B"),
    ):
        problems = "\n".join(experiment.missing(recipe))
        assert f"{name} is not public: name images of your own, source=tfds:NAME" in problems
        assert recipes.get(recipe, "data.examples", "data.classes") > (10**8, 10**4)  # enough to plan with
    own = recipes.load("vit/pretrain.py", data="jft", source="tfds:mine", train="train[1000:]", val="train[:1000]")
    assert recipes.get(own, "data.source", "data.split") == ("tfds:mine", "train[1000:]")
    assert recipes.get(own, "data.examples", "data.classes") == (None, None)
    assert recipes.get(own, "evals.val.source", "evals.val.split") == ("tfds:mine", "train[:1000]")


def test_a_length_that_is_not_in_the_table_is_refused():
    with pytest.raises(types.InputError, match="epochs must be one of 30, 90: it is '300'"):
        pretrain("imagenet21k", "L/16", 300)
    with pytest.raises(types.InputError, match="model must be one of B/16, B/32, L/16, L/32: it is 'H/14'"):
        pretrain("imagenet21k", "H/14", "")
