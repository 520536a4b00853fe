"""Fine-tuning, few-shot and VTAB, row by row: the numbers of the papers, written down again here, are the recipes'."""

import functools
import itertools
import math

import pytest

from tests.experiments import recipes
from transformer_jax import config, experiment, protocol, types
from transformer_jax.optim import schedules

LARGE, SMALL = (0.003, 0.01, 0.03, 0.06), (0.001, 0.003, 0.01, 0.03)
# ViT, 2010.11929, table 4: steps, warm-up, grid, train, dev, test, classes, crop
TABLE_4 = {
    "imagenet2012": (20_000, 500, LARGE, "train[:99%]", "train[99%:]", "validation", 1000, "inception"),
    "cifar100": (10_000, 500, SMALL, "train[:98%]", "train[98%:]", "test", 100, "small"),
    "cifar10": (10_000, 500, SMALL, "train[:98%]", "train[98%:]", "test", 10, "small"),
    "oxford_iiit_pet": (500, 100, SMALL, "train[:90%]", "train[90%:]", "test", 37, "inception"),
    "oxford_flowers102": (500, 100, SMALL, "train[:90%]", "train[90%:]", "test", 102, "inception"),
}
CROPS = {
    "inception": ["decode", "inception_crop(384)", "flip_lr", "value_range(-1, 1)"],
    "small": ["decode", "resize_small(448)", "random_crop(384)", "flip_lr", "value_range(-1, 1)"],
}
JUDGED = ["decode", "resize_small(448)", "central_crop(384)", "value_range(-1, 1)"]
MODELS = ("B/16", "B/32", "L/16", "L/32", "H/14")

# VTAB-1k as the ViT paper runs it: source, tuning examples, test, classes, crops and flips, label function, group
VTAB = {
    "caltech101": ("caltech101:3.*.*", "train[2754:2954]", "test", 102, "cf", None, "natural"),
    "cifar100": ("cifar100:3.*.*", "train[45000:45200]", "test", 100, "cf", None, "natural"),
    "dtd": ("dtd:3.*.*", "validation[:200]", "test", 47, "cf", None, "natural"),
    "flowers": ("oxford_flowers102:2.*.*", "validation[:200]", "test", 102, "cf", None, "natural"),
    "pets": ("oxford_iiit_pet:3.*.*", "train[2944:3144]", "test", 37, "cf", None, "natural"),
    "sun397": ("sun397/tfds:4.*.*", "validation[:200]", "test", 397, "cf", None, "natural"),
    "svhn": ("svhn_cropped:3.*.*", "train[65931:66131]", "test", 10, "cf", None, "natural"),
    "camelyon": ("patch_camelyon:2.*.*", "validation[:200]", "test", 2, "cf", None, "specialized"),
    "eurosat": ("eurosat/rgb:2.*.*", "train[16200:16400]", "train[21600:]", 10, "cf", None, "specialized"),
    "resisc45": ("resisc45:3.*.*", "train[18900:19100]", "train[25200:]", 45, "cf", None, "specialized"),
    "retinopathy": (
        "diabetic_retinopathy_detection/btgraham-300:3.*.*",
        "validation[:200]",
        "test",
        5,
        "cf",
        None,
        "specialized",
    ),
    "clevr_count": ("clevr:3.*.*", "train[63000:63200]", "validation", 8, "f", "clevr_count_all", "structured"),
    "clevr_distance": (
        "clevr:3.*.*",
        "train[63000:63200]",
        "validation",
        6,
        "f",
        "clevr_closest_object_distance",
        "structured",
    ),
    "dmlab": ("dmlab:2.0.1", "validation[:200]", "test", 6, "f", None, "structured"),
    "dsprites_location": (
        "dsprites:2.*.*",
        "train[589824:590024]",
        "train[663552:]",
        16,
        "",
        "dsprites_label_x_position",
        "structured",
    ),
    "dsprites_orientation": (
        "dsprites:2.*.*",
        "train[589824:590024]",
        "train[663552:]",
        16,
        "c",
        "dsprites_label_orientation",
        "structured",
    ),
    "kitti": ("kitti:3.1.0", "validation[:200]", "test", 4, "f", "kitti_closest_vehicle_distance", "structured"),
    "norb_azimuth": ("smallnorb:2.*.*", "test[:200]", "test[50%:]", 18, "c", "smallnorb_label_azimuth", "structured"),
    "norb_elevation": (
        "smallnorb:2.*.*",
        "test[:200]",
        "test[50%:]",
        9,
        "cf",
        "smallnorb_label_elevation",
        "structured",
    ),
}

# big_vision's few-shot suite: data set, shots are drawn from, judged on
FEWSHOT = {
    "caltech101": ("tfds:caltech101", "train", "test"),
    "cars196": ("tfds:cars196:2.1.0", "train", "test"),
    "cifar100": ("tfds:cifar100", "train", "test"),
    "dtd": ("tfds:dtd", "train", "test"),
    "oxford_iiit_pet": ("tfds:oxford_iiit_pet", "train", "test"),
    "uc_merced": ("tfds:uc_merced", "train[:1000]", "train[1000:]"),
    "imagenet2012": ("tfds:imagenet2012", "train[:65000]", "validation"),
}

# AugReg, 2106.10270, table 4: rates, (steps, warm-up)
AUGREG = {
    "imagenet2012": ((0.01, 0.03), ((20_000, 500),)),
    "oxford_iiit_pet": ((0.001, 0.003, 0.01), ((500, 100), (2_500, 200))),
    "kitti": ((0.001, 0.003, 0.01), ((500, 100), (2_500, 200))),
    "cifar100": ((0.001, 0.003, 0.01), ((2_500, 200), (10_000, 500))),
    "resisc45": ((0.001, 0.003, 0.01), ((2_500, 200), (10_000, 500))),
}


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


@functools.cache
def closed_loop(file, **arguments):
    words = ",".join(f"{key}={value}" for key, value in arguments.items())
    return protocol.resolve(config.load(f"{recipes.ROOT / file}:{words}"))


def require_table_4(settings):
    """What all of fine-tuning has in common."""
    assert recipes.get(settings, "optim.name", "optim.momentum", "optim.nesterov") == ("sgd", 0.9, False)
    assert recipes.get(settings, "optim.weight_decay", "optim.clip_norm") == (0.0, 1.0)
    assert recipes.get(settings, "data.batch_size", "schedule.name", "schedule.end") == (512, "cosine", 0.0)
    assert recipes.get(settings, "train.loss", "train.mixup", "train.label_smoothing") == ("softmax", 0.0, 0.0)
    assert recipes.get(settings, "init_from.head", "model.head_zero") == ("reset", True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dataset", TABLE_4)
def test_every_row_of_table_4_is_what_its_recipe_resolves_to(dataset, model):
    steps, warmup, _, _, _, test, _, crop = TABLE_4[dataset]
    settings = recipes.load("transfer/finetune.py", dataset=dataset, model=model)
    require_table_4(settings)
    assert recipes.get(settings, "data.source", "evals.eval.source") == (f"tfds:{dataset}",) * 2
    assert recipes.get(settings, "train.total", "schedule.warmup", "evals.eval.split") == (steps, warmup, test)
    assert recipes.get(settings, "model.variant", "train.average") == (model, None)
    assert recipes.get(settings, "model.pre_logits", "model.dropout") == (False, 0.0)
    # 27 patches of 14 are 378 pixels: the middle of what the other models see
    size, cut = (378, ["central_crop(378)"]) if model == "H/14" else (384, [])
    assert settings["model"]["image_size"] == size
    assert recipes.stages(settings["data"]["preprocess"]) == [*CROPS[crop][:-1], *cut, CROPS[crop][-1]]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == [*JUDGED[:-1], *cut, JUDGED[-1]]


@pytest.mark.parametrize("dataset", TABLE_4)
def test_the_protocol_tunes_each_row_on_its_grid_and_splits(dataset):
    _, _, grid, train, dev, test, _, _ = TABLE_4[dataset]
    settings = closed_loop("transfer/protocol.py", weights="B_16.npz")
    assert set(settings["targets"]) == set(TABLE_4) and settings["seeds"] == 3
    target = settings["targets"][dataset]
    assert tuple(target["finetune_grid"]) == grid
    final = "train+validation" if dataset == "oxford_flowers102" else "train"
    assert recipes.get(target, "train", "dev", "final", "test") == (train, dev, final, test)
    assert target["scratch"] is None and target["finetune"]["init_from"]["path"] == "B_16.npz"


def test_whether_flowers_takes_its_validation_split_is_a_flag():
    split = {
        flag: recipes.load("transfer/finetune.py", dataset="oxford_flowers102", validation=flag)["data"]["split"]
        for flag in ("yes", "no")
    }
    assert split == {"yes": "train+validation", "no": "train"}
    target = closed_loop("transfer/protocol.py", validation="no")["targets"]["oxford_flowers102"]
    assert target["final"] == "train"


@pytest.mark.parametrize("model, size, grid", [("L/16", 512, 32), ("H/14", 518, 37)])
def test_the_headline_has_its_size_and_the_polyak_average(model, size, grid, shared):
    settings = recipes.load("transfer/finetune.py", dataset="imagenet2012", model=model, size="headline")
    require_table_4(settings)
    assert recipes.get(settings, "model.image_size", "train.average", "train.total") == (size, 0.9999, 20_000)
    assert f"inception_crop({size})" in recipes.stages(settings["data"]["preprocess"])
    assert f"central_crop({size})" in recipes.stages(settings["evals"]["eval"]["preprocess"])
    program, _ = recipes.trace(settings, 1000, shared)
    assert program.model.config.grid == (grid, grid)
    assert program.abstract.average is not None


def test_the_headline_is_of_two_models_on_imagenet():
    with pytest.raises(types.InputError, match="model of the headline must be one of L/16, H/14: it is 'B/16'"):
        recipes.load("transfer/finetune.py", dataset="imagenet2012", size="headline")
    with pytest.raises(types.InputError, match="dataset of the headline must be one of imagenet2012"):
        recipes.load("transfer/finetune.py", dataset="cifar10", model="L/16", size="headline")


@pytest.mark.parametrize("data, weights", [("imagenet21k", "L/16"), ("imagenet1k", "B/32")])
def test_the_whole_paper_pretrains_and_then_fine_tunes_all_of_table_4(data, weights):
    settings = closed_loop("vit/protocol.py", model=weights, data=data)
    assert set(settings["targets"]) == set(TABLE_4) and settings["weights"] is None
    assert settings["pretrain"] == recipes.load("vit/pretrain.py", model=weights, data=data)
    for dataset, target in settings["targets"].items():
        judges = {"judges": "real"} if dataset == "imagenet2012" else {}
        assert target["finetune"] == recipes.load("transfer/finetune.py", dataset=dataset, model=weights, **judges)


@pytest.mark.parametrize("name", FEWSHOT)
def test_every_row_of_the_few_shot_suite_is_what_its_recipe_resolves_to(name):
    settings = recipes.load("transfer/fewshot.py", datasets=name)
    (section,) = settings["evals"].values()
    assert (section["source"], section["train_split"], section["test_split"]) == FEWSHOT[name]
    assert recipes.get(section, "kind", "seeds") == ("fewshot", 3)
    assert tuple(section["shots"]) == (1, 5, 10, 25) and tuple(section["l2"]) == (1024.0,)
    assert recipes.stages(section["preprocess"]) == ["decode", "resize(256)", "central_crop(224)", "value_range(-1, 1)"]
    assert settings["model"]["image_size"] == 224


def test_imagenet_is_not_among_the_few_shot_sets_unless_asked_for():
    suite = recipes.load("transfer/fewshot.py")["evals"]
    assert {name.removesuffix("_fewshot") for name in suite} == set(FEWSHOT) - {"imagenet2012"}


def test_the_sets_that_judge_imagenet_classifiers():
    evals = recipes.load("transfer/imagenet.py", judges="val+v2+real+r+a+sketch", folders="/data")["evals"]
    found = {name: (section["kind"], section["source"], section["split"]) for name, section in evals.items()}
    assert found == {
        "val": ("classification", "tfds:imagenet2012", "validation"),
        "v2": ("classification", "tfds:imagenet_v2", "test"),
        "real": ("multilabel", "tfds:imagenet2012_real", "validation"),
        "r": ("classification", "folder:/data/imagenet-r", "train"),
        "a": ("classification", "folder:/data/imagenet-a", "train"),
        "sketch": ("classification", "folder:/data/sketch", "train"),
    }
    assert {name for name, section in evals.items() if section.get("subset")} == {"r", "a", "sketch"}
    assert evals["real"]["arguments"]["label_key"] == "real_label"
    for name, section in evals.items():
        several = ["multihot(1000)"] if name == "real" else []
        assert recipes.stages(section["preprocess"]) == [*JUDGED, *several]


def test_vtab_has_nineteen_tasks_in_three_groups():
    settings = closed_loop("transfer/vtab_protocol.py", weights="L_16.npz", model="L/16")
    assert set(settings["targets"]) == set(VTAB) and len(VTAB) == 19
    groups = {group: [task for task, row in VTAB.items() if row[-1] == group] for *_, group in VTAB.values()}
    assert {group: list(tasks) for group, tasks in settings["groups"].items()} == groups
    assert [len(tasks) for tasks in groups.values()] == [7, 4, 8]


@pytest.mark.parametrize("task", VTAB)
def test_every_task_of_vtab_is_what_its_recipe_resolves_to(task):
    source, dev, test, _, changes, label, _ = VTAB[task]
    settings = recipes.load("transfer/vtab.py", task=task)
    require_table_4(settings)
    assert recipes.get(settings, "train.total", "schedule.warmup", "schedule.base") == (2_500, 200, 0.01)
    assert settings["data"]["source"] == settings["evals"]["eval"]["source"] == f"tfds:{source}"
    assert settings["data"]["split"] == f"train[:800]+{dev}" and settings["evals"]["eval"]["split"] == test
    arguments = {} if label is None else {"label_function": label}
    assert settings["data"]["arguments"] == settings["evals"]["eval"]["arguments"] == arguments
    cropped = ["resize(448)", "random_crop(384)"] if "c" in changes else ["resize(384)"]
    flipped = ["flip_lr"] if "f" in changes else []
    assert recipes.stages(settings["data"]["preprocess"]) == ["decode", *cropped, *flipped, "value_range(-1, 1)"]
    assert recipes.stages(settings["evals"]["eval"]["preprocess"]) == ["decode", "resize(384)", "value_range(-1, 1)"]


@pytest.mark.parametrize("task", VTAB)
def test_a_thousand_images_train_each_task_once_and_nothing_is_tuned(task):
    _, dev, test, *_ = VTAB[task]
    settings = closed_loop("transfer/vtab_protocol.py")
    target = settings["targets"][task]
    assert recipes.get(target, "train", "dev", "final", "test") == ("train[:800]", dev, f"train[:800]+{dev}", test)
    assert (settings["seeds"], tuple(target["finetune_grid"])) == (1, (0.01,))


def test_the_label_functions_make_as_many_classes_as_the_tasks_have():
    labels = pytest.importorskip("transformer_jax.data.vtab_labels").LABELS
    module = config.module(recipes.ROOT / "transfer/vtab.py")
    assert {task: module.TASKS[task].classes for task in VTAB} == {task: row[3] for task, row in VTAB.items()}
    for row in VTAB.values():
        assert row[5] is None or len(labels[row[5]].class_names) == row[3]
    assert set(labels) == {row[5] for row in VTAB.values()} - {None}


@pytest.mark.parametrize("dataset", AUGREG)
def test_augreg_tries_its_rates_and_lengths(dataset):
    rates, lengths = AUGREG[dataset]
    settings = closed_loop("transfer/augreg_protocol.py", weights="B_16.npz")
    assert set(settings["targets"]) == set(AUGREG)
    target = settings["targets"][dataset]
    tried = {
        (choice["schedule.base"], choice["train.total"], choice["schedule.warmup"])
        for choice in target["finetune_grid"]
    }
    assert tried == {(rate, *length) for rate, length in itertools.product(rates, lengths)}
    assert len(target["finetune_grid"]) == len(tried)
    assert target["select"] == ("v2/top1" if dataset == "imagenet2012" else "eval/top1")
    require_table_4(target["finetune"])


@pytest.mark.parametrize("size, resized", [(224, 256), (384, 448)])
def test_augreg_fine_tunes_at_two_sizes(size, resized):
    settings = closed_loop("transfer/augreg_protocol.py", size=size, datasets="imagenet2012")
    recipe = settings["targets"]["imagenet2012"]["finetune"]
    assert recipe["model"]["image_size"] == size
    for name in ("eval", "v2"):
        assert recipes.stages(recipe["evals"][name]["preprocess"])[1:3] == [
            f"resize_small({resized})",
            f"central_crop({size})",
        ]


@pytest.mark.parametrize("steps, warmup", [(500, 100), (2_500, 200), (10_000, 500), (20_000, 500)])
def test_the_warm_up_follows_the_length(steps, warmup):
    settings = recipes.load("transfer/finetune.py", dataset="cifar100", steps=steps)
    rate = schedules.build(**settings["schedule"], total_steps=steps)
    assert settings["schedule"]["warmup"] == warmup
    assert [rate(warmup // 2), rate(warmup), rate(steps)] == pytest.approx([0.005, 0.01, 0.0])


FULL_SIZE = [
    *((dict(dataset=dataset, model=model), row[6]) for dataset, row in TABLE_4.items() for model in MODELS),
    *((dict(dataset="cifar10", model=model), 10) for model in ("R50x1", "R50+B/16", "R26+S/32")),
    *((dict(dataset=dataset, model="B/16"), classes) for dataset, classes in (("resisc45", 45), ("kitti", 4))),
    (dict(dataset="oxford_iiit_pet", model="g/14", pool="map"), 37),
]


def full_size(arguments, classes):
    """Every model once; all pairs, 25 more tracings of one to eight seconds, are for the slow tests."""
    quick = arguments["dataset"] == "imagenet2012" or arguments in (FULL_SIZE[10][0], FULL_SIZE[-1][0])
    return pytest.param(arguments, classes, id="-".join(arguments.values()), marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("arguments, classes", [full_size(*case) for case in FULL_SIZE])
def test_a_fine_tuning_step_compiles_abstractly_at_full_size(arguments, classes, shared):
    _, metrics = recipes.trace(recipes.load("transfer/finetune.py", **arguments), classes, shared)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == "float32"


# the tasks differ in their classes alone: one tracing is quick, sixteen are not
@pytest.mark.parametrize("task", [t if t == "dtd" else pytest.param(t, marks=pytest.mark.slow) for t in VTAB])
def test_a_step_of_a_vtab_task_compiles_abstractly_at_full_size(task, shared):
    _, metrics = recipes.trace(recipes.load("transfer/vtab.py", task=task), VTAB[task][3], shared)
    assert metrics["loss"].shape == ()


@pytest.mark.slow  # a compilation of some seconds each; tests/test_experiments.py steps one recipe of every kind
@pytest.mark.parametrize(
    "file, arguments",
    [
        *(("transfer/finetune.py", dict(dataset=dataset)) for dataset in (*TABLE_4, "resisc45", "kitti")),
        *(("transfer/finetune.py", dict(dataset="imagenet2012", model=m, size="headline")) for m in ("L/16", "H/14")),
        *(("transfer/vtab.py", dict(task=task)) for task in VTAB),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_shrunk_each_takes_a_step(file, arguments, shared):
    assert math.isfinite(recipes.step(recipes.shrink(recipes.load(file, **arguments)), shared))
