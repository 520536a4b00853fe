"""AugReg, the plain ViT and ViT-g, row by row: their numbers, written down again, are what the recipes resolve to."""

import itertools
import math

import pytest

from tests.experiments import papers, recipes
from transformer_jax import config, experiment
from transformer_jax.optim import masks


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


def require_pixels(settings, layers=0, magnitude=0):
    """All that is done to images, for training and for judging."""
    changes = [f"randaug({layers}, {magnitude})"] if layers else []
    *before, scaling = papers.PRETRAINED
    assert recipes.stages(settings["data"]["preprocess"]) == [*before, *changes, scaling]
    assert recipes.stages(settings["evals"]["val"]["preprocess"]) == papers.PRETRAINED_JUDGED


def test_there_are_28_combinations():
    assert len(papers.COMBINATIONS) == 28
    module = config.module(recipes.ROOT / "vit/augreg.py")
    found = itertools.product(module.AUGMENTATIONS, module.REGULARISATIONS, map(float, module.WEIGHT_DECAYS))
    assert list(found) == papers.COMBINATIONS


@pytest.mark.parametrize("data", papers.DEFAULTS)
@pytest.mark.parametrize("row", papers.COMBINATIONS, ids=lambda c: "-".join(map(str, c)))
def test_every_combination_of_augreg_is_what_its_recipe_resolves_to(row, data):
    augment, regularise, weight_decay = row
    settings = recipes.load("vit/augreg.py", data=data, **papers.combination(row))
    layers, magnitude, mixup = papers.AUGMENTATIONS[augment]
    rate = papers.REGULARISATIONS[regularise]
    require_pixels(settings, layers, magnitude)
    assert settings["train"]["mixup"] == mixup
    assert not settings["train"].get("mix_per_example") and not settings["train"].get("cutmix")
    assert recipes.get(settings, "model.dropout", "model.stochastic_depth") == (rate, rate)
    assert recipes.get(settings, "optim.weight_decay", "optim.clip_norm") == (weight_decay, 1.0)
    assert recipes.get(settings, "optim.b1", "optim.b2", "optim.moment_dtype") == (0.9, 0.999, "bfloat16")
    assert recipes.get(settings, "data.batch_size", "model.image_size", "train.loss") == (4096, 224, "sigmoid")
    assert recipes.get(settings, "schedule.name", "schedule.base", "schedule.warmup", "schedule.end") == (
        "cosine",
        0.001,
        10_000,
        0.0,
    )


@pytest.mark.parametrize("data", papers.DEFAULTS)
@pytest.mark.parametrize("model", papers.DEFAULTS["imagenet1k"])
def test_every_size_has_the_augmentation_and_head_of_big_vision(model, data):
    settings = recipes.load("vit/augreg.py", model=model, data=data)
    layers, magnitude, mixup = papers.AUGMENTATIONS[papers.DEFAULTS[data][model]]
    require_pixels(settings, layers, magnitude)
    assert settings["train"]["mixup"] == mixup
    assert recipes.get(settings, "model.variant", "model.dropout", "model.stochastic_depth") == (model, 0.0, 0.0)
    assert recipes.get(settings, "model.pool", "model.pre_logits", "model.head_bias") == (
        ("tok", True, -6.9) if data == "imagenet1k" else ("gap", False, -10.0)
    )
    assert settings["model"]["position"] in (None, "learned")


@pytest.mark.parametrize("data, epochs, thousands", papers.AUGREG_ROWS)
def test_augreg_runs_as_long_as_its_epochs(data, epochs, thousands):
    settings = recipes.load("vit/augreg.py", data=data, epochs=epochs)
    assert recipes.length(settings, papers.IMAGES[data]) / 1000 == pytest.approx(thousands, rel=2e-3)


@pytest.mark.parametrize("ablate", papers.ABLATIONS)
def test_every_row_of_the_plain_vit_is_what_its_recipe_resolves_to(ablate):
    settings = recipes.load("vit/plain.py", ablate=ablate)
    pool, position, pre_logits, batch, layers, mixup = {**papers.PLAIN, **papers.ABLATIONS[ablate]}.values()
    assert recipes.get(settings, "model.pool", "model.position", "model.pre_logits") == (pool, position, pre_logits)
    assert recipes.get(settings, "data.batch_size", "train.mixup") == (batch, mixup)
    require_pixels(settings, *layers)
    assert recipes.get(settings, "model.variant", "model.image_size", "train.loss") == ("S/16", 224, "softmax")
    assert recipes.get(settings, "model.dropout", "model.stochastic_depth", "model.head_bias") == (0.0, 0.0, 0.0)
    assert recipes.get(settings, "schedule.name", "schedule.base", "schedule.warmup") == ("cosine", 0.001, 10_000)
    assert recipes.get(settings, "optim.weight_decay", "optim.clip_norm") == (0.1, 1.0)
    assert recipes.get(settings, "optim.moment_dtype", "data.split") == ("bfloat16", "train[:99%]")


@pytest.mark.parametrize("epochs, batch, steps", [(90, 1024, 112_602), (150, 1024, 187_670), (300, 1024, 375_341)])
def test_the_plain_vit_runs_as_long_as_its_epochs(epochs, batch, steps):
    settings = recipes.load("vit/plain.py", epochs=epochs)
    assert settings["data"]["batch_size"] == batch and recipes.length(settings, papers.IMAGES["imagenet1k"]) == steps


def test_vit_g_is_what_scaling_vision_transformers_says():
    settings = recipes.load("vit/giant.py", source="folder:mine")
    assert recipes.get(settings, "model.variant", "model.pool", "model.head_bias") == ("g/14", "map", -10.0)
    assert recipes.get(settings, "data.batch_size", "train.total", "train.loss") == (16_384, 1_000_000, "sigmoid")
    assert recipes.get(settings, "optim.name", "optim.clip_norm", "optim.moment_dtype") == (
        "adafactor",
        1.0,
        "bfloat16",
    )
    assert recipes.get(settings, "schedule.name", "schedule.base") == ("rsqrt", 0.0008)
    assert recipes.get(settings, "schedule.timescale", "schedule.warmup", "schedule.cooldown") == (
        10_000,
        10_000,
        50_000,
    )
    require_pixels(settings)
    rates = [recipes.rate(settings, step) for step in (10_000, 110_000, 975_000, 1_000_000)]
    before = 0.0008 / math.sqrt(1 + 96.5)
    assert rates == pytest.approx([0.0008, 0.0008 / math.sqrt(11), before / 2, 0.0], rel=1e-6)


def test_the_head_of_vit_g_decays_a_hundred_times_as_much_as_its_body(shared):
    settings = recipes.load("vit/giant.py", source="folder:mine")
    program, _ = recipes.trace(settings, 29_593, shared)
    options = {key: settings["optim"][key] for key in ("weight_decay", "decay")}
    plan = masks.plan(program.model.abstract, stacks=program.model.stacks, **options)
    decays = {path: treatment.decay for path, treatment in plan.items()}
    assert decays.pop("head/kernel") == pytest.approx(3.0)
    kernels = {path: decay for path, decay in decays.items() if path.endswith("kernel")}
    assert set(kernels.values()) == {0.03} and any(path.startswith("pool/") for path in kernels)
    assert not any(decay for path, decay in decays.items() if path not in kernels)
