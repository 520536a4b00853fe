"""Few-shot and the test sets of ImageNet, row by row."""

import pytest

from tests.experiments import papers, recipes
from transformer_jax import types


@pytest.mark.parametrize("name", papers.FEWSHOT)
def test_every_row_of_the_few_shot_suite_is_what_its_recipe_resolves_to(name):
    settings = recipes.load("transfer/fewshot.py", datasets=name)
    (section,) = settings["evals"].values()
    assert (section["source"], section["train_split"], section["test_split"]) == papers.FEWSHOT[name]
    assert recipes.get(section, "kind", "seeds") == ("fewshot", 3)
    assert tuple(section["shots"]) == (1, 5, 10, 25) and tuple(section["l2"]) == (1024.0,)
    assert recipes.stages(section["preprocess"]) == ["decode", "resize(256)", "central_crop(224)", "value_range(-1, 1)"]
    assert settings["model"]["image_size"] == 224


def test_imagenet_is_not_among_the_few_shot_sets_unless_asked_for():
    suite = recipes.load("transfer/fewshot.py")["evals"]
    assert {name.removesuffix("_fewshot") for name in suite} == set(papers.FEWSHOT) - {"imagenet2012"}


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
        assert recipes.stages(section["preprocess"]) == [*papers.JUDGED, *several]


@pytest.mark.parametrize(
    "kind, own", [("knn", {"k": (10, 20)}), ("probe", {"held_out": 0.1}), ("fewshot", {"seeds": 3})]
)
def test_frozen_features_are_judged_in_three_ways(kind, own):
    evals = recipes.load("transfer/fewshot.py", datasets="cifar100+dtd", kind=kind)["evals"]
    assert list(evals) == [f"cifar100_{kind}", f"dtd_{kind}"]
    for section in evals.values():
        assert section["kind"] == kind and own.items() <= section.items()
    with pytest.raises(types.InputError, match="kind must be one of fewshot, knn, probe: it is 'ridge'"):
        recipes.load("transfer/fewshot.py", kind="ridge")


@pytest.mark.parametrize("file", ["transfer/imagenet.py", "transfer/fewshot.py"])
def test_a_hidden_layer_is_an_argument_of_both(file):
    found = {hidden: recipes.load(file, hidden=hidden)["model"]["pre_logits"] for hidden in ("yes", "no", "")}
    assert found == {"yes": True, "no": False, "": False}


def test_what_h_14_judges_is_the_middle_of_what_the_others_see():
    settings = recipes.load("transfer/imagenet.py", model="H/14", judges="val")
    *before, scaling = papers.JUDGED
    assert recipes.stages(settings["evals"]["val"]["preprocess"]) == [*before, "central_crop(378)", scaling]
    assert settings["model"]["image_size"] == 378
