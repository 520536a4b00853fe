"""Pretraining, row by row: the numbers of the papers, written down again here, are what the recipes resolve to."""

import itertools
import math

import pytest

from tests.experiments import recipes
from transformer_jax import config, experiment, types
from transformer_jax.optim import masks

IMAGES = {"jft": 303_000_000, "imagenet21k": 14_200_000, "imagenet1k": 1_281_167}
CLASSES = {"jft": 18_000, "imagenet21k": 21_843, "imagenet1k": 1_000}

# ViT, 2010.11929, table 3: model, epochs, base rate, decay, weight decay, dropout, thousands of steps
TABLE_3 = {
    "jft": [
        ("B/16", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("B/32", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("L/32", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("L/16", 7, 0.0004, "linear", 0.1, 0.0, 518),
        ("L/16", 14, 0.0004, "linear", 0.1, 0.0, 1036),
        ("H/14", 14, 0.0003, "linear", 0.1, 0.0, 1036),
        ("R50x1", 7, 0.001, "linear", 0.1, 0.0, 518),
        ("R50x2", 7, 0.001, "linear", 0.1, 0.0, 518),
        ("R101x1", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R152x1", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("R152x2", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("R50+B/16", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R50+B/32", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R50+L/32", 7, 0.0002, "linear", 0.1, 0.0, 518),
        ("R50+L/16", 7, 0.0004, "linear", 0.1, 0.0, 518),
        ("R50+L/16", 14, 0.0004, "linear", 0.1, 0.0, 1036),
    ],
    "imagenet21k": [
        ("B/16", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("B/32", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("L/16", 30, 0.001, "linear", 0.03, 0.1, 104),
        ("L/16", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("L/32", 30, 0.001, "linear", 0.03, 0.1, 104),
        ("L/32", 90, 0.001, "linear", 0.03, 0.1, 312),
    ],
    "imagenet1k": [(model, 300, 0.003, "cosine", 0.3, 0.1, 93.8) for model in ("B/16", "B/32", "L/16", "L/32", "H/14")],
}
ROWS = [(data, *row) for data, rows in TABLE_3.items() for row in rows]


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


def table_3(data, model, epochs):
    """The arguments of a row."""
    return dict(model=model, data=data, epochs=epochs, **({"source": "folder:mine"} if data == "jft" else {}))


def pretrain(*row):
    return recipes.load("vit/pretrain.py", **table_3(*row))


def row_name(row):
    return "-".join(map(str, row[:3])) if isinstance(row, tuple) else None


@pytest.mark.parametrize("row", ROWS, ids=row_name)
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
    assert recipes.length(settings, IMAGES[data]) / 1000 == pytest.approx(thousands, rel=1e-3)


@pytest.mark.parametrize("data", TABLE_3)
def test_the_recipe_has_no_other_rows(data):
    module = config.module(recipes.ROOT / "vit/pretrain.py")
    rows = {
        (model, int(epochs))
        for row in module.TABLE
        if row.data == data
        for model, epochs in itertools.product(row.models.split(), row.epochs.split())
    }
    assert rows == {row[:2] for row in TABLE_3[data]}


@pytest.mark.parametrize(
    "data, model, end", [("jft", "B/16", 1e-5), ("imagenet21k", "L/16", 1e-5), ("imagenet1k", "B/16", 0)]
)
def test_the_rate_rises_for_10k_steps_and_falls_to_its_end(data, model, end):
    settings = pretrain(data, model, "")
    base, last = settings["schedule"]["base"], recipes.length(settings, IMAGES[data])
    rate = {step: recipes.rate(settings, step, IMAGES[data]) for step in (5_000, 10_000, (10_000 + last) // 2, last)}
    assert list(rate.values()) == pytest.approx([base / 2, base, (base + end) / 2, end], rel=1e-4, abs=1e-12)


def test_crops_flips_and_nothing_else():
    for data in TABLE_3:
        settings = pretrain(data, "B/16", "")
        assert recipes.stages(settings["data"]["preprocess"]) == [
            "decode",
            "inception_crop(224)",
            "flip_lr",
            "value_range(-1, 1)",
        ]
        assert recipes.stages(settings["evals"]["val"]["preprocess"]) == [
            "decode",
            "resize_small(256)",
            "central_crop(224)",
            "value_range(-1, 1)",
        ]


def test_the_splits_are_those_of_big_vision():
    def splits(data):
        return recipes.get(pretrain(data, "B/16", ""), "data.source", "data.split", "evals.val.split")

    assert splits("imagenet21k") == ("tfds:imagenet21k", "full[51200:]", "full[25600:51200]")
    assert splits("imagenet1k") == ("tfds:imagenet2012", "train[:99%]", "validation")


def test_data_nobody_can_download_must_be_named():
    with pytest.raises(types.InputError, match="JFT-300M is not public: .* source="):
        recipes.load("vit/pretrain.py", data="jft")
    with pytest.raises(types.InputError, match="JFT-3B is not public: .* source="):
        recipes.load("vit/giant.py")
    own = recipes.load("vit/pretrain.py", data="jft", source="tfds:mine", train="train[1000:]", val="train[:1000]")
    assert recipes.get(own, "data.source", "data.split") == ("tfds:mine", "train[1000:]")
    assert recipes.get(own, "evals.val.source", "evals.val.split") == ("tfds:mine", "train[:1000]")


def test_a_length_that_is_not_in_the_table_is_refused():
    with pytest.raises(types.InputError, match="epochs must be one of 30, 90: it is '300'"):
        pretrain("imagenet21k", "L/16", 300)
    with pytest.raises(types.InputError, match="model must be one of B/16, B/32, L/16, L/32: it is 'H/14'"):
        pretrain("imagenet21k", "H/14", "")


# AugReg, 2106.10270: RandAugment's layers and magnitude, mixup
AUGMENTATIONS = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}
REGULARISATIONS = {"none": 0.0, "both": 0.1}
COMBINATIONS = list(itertools.product(AUGMENTATIONS, REGULARISATIONS, (0.1, 0.03)))
# big_vision's choice for every size
DEFAULTS = {
    "imagenet1k": {
        "Ti/16": "light1",
        "S/32": "medium1",
        "S/16": "medium2",
        "B/32": "medium2",
        "B/16": "medium2",
        "L/16": "medium2",
    },
    "imagenet21k": {
        "Ti/16": "none",
        "S/32": "none",
        "S/16": "light1",
        "B/32": "light2",
        "B/16": "light2",
        "L/16": "medium2",
    },
}
AUGREG_ROWS = [("imagenet1k", 300, 93.8), ("imagenet21k", 30, 104), ("imagenet21k", 300, 1040)]


def combination(row):
    """The arguments of a combination."""
    return dict(zip(("augment", "regularise", "weight_decay"), row, strict=True))


def randaug(settings):
    """(layers, magnitude) of the op, zeros without it."""
    found = [stage for stage in recipes.stages(settings["data"]["preprocess"]) if stage.startswith("randaug")]
    return tuple(int(number) for number in found[0][len("randaug(") : -1].split(",")) if found else (0, 0)


def test_there_are_28_combinations():
    assert len(COMBINATIONS) == 28
    module = config.module(recipes.ROOT / "vit/augreg.py")
    found = itertools.product(module.AUGMENTATIONS, module.REGULARISATIONS, map(float, module.WEIGHT_DECAYS))
    assert list(found) == COMBINATIONS


@pytest.mark.parametrize("data", DEFAULTS)
@pytest.mark.parametrize("row", COMBINATIONS, ids=lambda c: "-".join(map(str, c)))
def test_every_combination_of_augreg_is_what_its_recipe_resolves_to(row, data):
    augment, regularise, weight_decay = row
    settings = recipes.load("vit/augreg.py", data=data, **combination(row))
    layers, magnitude, mixup = AUGMENTATIONS[augment]
    rate = REGULARISATIONS[regularise]
    assert randaug(settings) == (layers, magnitude)
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


@pytest.mark.parametrize("data", DEFAULTS)
@pytest.mark.parametrize("model", DEFAULTS["imagenet1k"])
def test_every_size_has_the_augmentation_and_head_of_big_vision(model, data):
    settings = recipes.load("vit/augreg.py", model=model, data=data)
    layers, magnitude, mixup = AUGMENTATIONS[DEFAULTS[data][model]]
    assert (randaug(settings), settings["train"]["mixup"]) == ((layers, magnitude), mixup)
    assert recipes.get(settings, "model.variant", "model.dropout", "model.stochastic_depth") == (model, 0.0, 0.0)
    assert recipes.get(settings, "model.pool", "model.pre_logits", "model.head_bias") == (
        ("tok", True, -6.9) if data == "imagenet1k" else ("gap", False, -10.0)
    )
    assert settings["model"]["position"] == "learned"


@pytest.mark.parametrize("data, epochs, thousands", AUGREG_ROWS)
def test_augreg_runs_as_long_as_its_epochs(data, epochs, thousands):
    settings = recipes.load("vit/augreg.py", data=data, epochs=epochs)
    assert recipes.length(settings, IMAGES[data]) / 1000 == pytest.approx(thousands, rel=2e-3)


# Better plain ViT, 2205.01580, table 1: what every ablation changes
PLAIN = {
    "pool": "gap",
    "position": "sincos2d",
    "pre_logits": True,
    "batch": 1024,
    "randaug": (2, 10),
    "mixup": 0.2,
}
NO_AUGMENT = {"randaug": (0, 0), "mixup": 0.0}
ORIGINAL = {"position": "learned", "batch": 4096, "pool": "tok"}
ABLATIONS = {
    "": {},
    "augment": NO_AUGMENT,
    "position": {"position": "learned"},
    "batch": {"batch": 4096},
    "token": {"pool": "tok"},
    "head": {"pre_logits": False},
    "setup": ORIGINAL,
    "original": {**ORIGINAL, **NO_AUGMENT},
}


@pytest.mark.parametrize("ablate", ABLATIONS)
def test_every_row_of_the_plain_vit_is_what_its_recipe_resolves_to(ablate):
    settings = recipes.load("vit/plain.py", ablate=ablate)
    pool, position, pre_logits, batch, layers, mixup = {**PLAIN, **ABLATIONS[ablate]}.values()
    assert recipes.get(settings, "model.pool", "model.position", "model.pre_logits") == (pool, position, pre_logits)
    assert recipes.get(settings, "data.batch_size", "train.mixup") == (batch, mixup) and randaug(settings) == layers
    assert recipes.get(settings, "model.variant", "model.image_size", "train.loss") == ("S/16", 224, "softmax")
    assert recipes.get(settings, "model.dropout", "model.stochastic_depth", "model.head_bias") == (0.0, 0.0, 0.0)
    assert recipes.get(settings, "schedule.name", "schedule.base", "schedule.warmup") == ("cosine", 0.001, 10_000)
    assert recipes.get(settings, "optim.weight_decay", "optim.clip_norm") == (0.1, 1.0)
    assert recipes.get(settings, "optim.moment_dtype", "data.split") == ("bfloat16", "train[:99%]")
    assert recipes.stages(settings["evals"]["val"]["preprocess"])[1:3] == ["resize_small(256)", "central_crop(224)"]


@pytest.mark.parametrize("epochs, batch, steps", [(90, 1024, 112_602), (150, 1024, 187_670), (300, 1024, 375_341)])
def test_the_plain_vit_runs_as_long_as_its_epochs(epochs, batch, steps):
    settings = recipes.load("vit/plain.py", epochs=epochs)
    assert settings["data"]["batch_size"] == batch and recipes.length(settings, IMAGES["imagenet1k"]) == steps


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


FULL_SIZE = [
    *(("vit/pretrain.py", table_3(*row[:3]), CLASSES[row[0]]) for row in ROWS),
    *(("vit/augreg.py", dict(model=m, data=data), CLASSES[data]) for data, models in DEFAULTS.items() for m in models),
    *(("vit/augreg.py", dict(combination(c), model="S/16"), 1000) for c in COMBINATIONS),
    *(("vit/plain.py", dict(ablate=ablate), 1000) for ablate in ABLATIONS),
    ("vit/giant.py", dict(source="folder:mine"), 29_593),
]
QUICK = (
    *(table_3(*row) for row in (("jft", "B/16", 7), ("jft", "L/16", 14), ("jft", "H/14", 14), ("jft", "R50+B/16", 7))),
    *(table_3(*row) for row in (("jft", "R50x1", 7), ("imagenet21k", "L/32", 90), ("imagenet1k", "B/16", 300))),
    dict(model="Ti/16", data="imagenet1k"),
    dict(model="L/16", data="imagenet21k"),
    dict(combination(COMBINATIONS[0]), model="S/16"),
    dict(combination(COMBINATIONS[-1]), model="S/16"),
    dict(ablate=""),
    dict(ablate="original"),
    dict(source="folder:mine"),
)


def full_size(file, arguments, classes):
    """Every kind of row once; the others, some forty tracings of one to eight seconds, are for the slow tests."""
    marks = () if arguments in QUICK else pytest.mark.slow
    return pytest.param(file, arguments, classes, id="-".join([file, *map(str, arguments.values())]), marks=marks)


@pytest.mark.parametrize("file, arguments, classes", [full_size(*case) for case in FULL_SIZE])
def test_a_training_step_compiles_abstractly_at_full_size(file, arguments, classes, shared):
    _, metrics = recipes.trace(recipes.load(file, **arguments), classes, shared)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == "float32"


@pytest.mark.slow  # 25 compilations of some seconds each; tests/test_experiments.py steps one recipe of every kind
@pytest.mark.parametrize(
    "file, arguments, classes", FULL_SIZE, ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else None
)
def test_shrunk_every_row_takes_a_step(file, arguments, classes, shared):
    assert math.isfinite(recipes.step(recipes.shrink(recipes.load(file, **arguments)), shared))
