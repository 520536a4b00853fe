"""What weights on this machine decide: pixels, size, hidden layer, pool and positions."""

import numpy as np
import pytest

from tests.cli import test_predict
from tests.experiments import recipes
from transformer_jax import config, experiment
from transformer_jax.experiment import setup as setups
from transformer_jax.experiment import weights

RECIPES = {
    "transfer/finetune.py": {},
    "transfer/vtab.py": {},
    "transfer/imagenet.py": {"judges": "val+v2"},
    "transfer/fewshot.py": {},
}
PROTOCOLS = ("transfer/protocol.py", "transfer/vtab_protocol.py", "transfer/augreg_protocol.py")


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


@pytest.fixture(scope="module")
def timm(tmp_path_factory):
    """Weights whose pixels are not from -1 to 1."""
    return test_predict.published(tmp_path_factory.mktemp("timm") / "w", "timm")[0]


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """Weights of ours with a layer before their head, trained on pixels from 0 to 1 and a mean of patches."""
    path = tmp_path_factory.mktemp("ours") / "w.safetensors"
    scaling = "decode | resize(32) | value_range(0, 1)"
    return test_predict.ours(path, preprocess=scaling, pre_logits=True, pool="gap")


def last(section):
    return recipes.stages(section["preprocess"])[-1]


@pytest.mark.parametrize("file", RECIPES)
def test_preprocessing_ends_in_what_weights_at_hand_want(file, hidden, tmp_path):
    for path, wanted in ((hidden, "value_range(0, 1)"), (tmp_path / "none.npz", "value_range(-1, 1)")):
        settings = recipes.load(file, weights=path, **RECIPES[file])
        assert {last(section) for section in (settings["data"], *settings["evals"].values())} == {wanted}


def test_channels_normalised_one_by_one_are_followed(timm):
    wanted = experiment.expects(str(timm)).pixels
    assert wanted.startswith("normalize(")
    settings = recipes.load("transfer/finetune.py", weights=timm)
    assert all(text.endswith(f" | {wanted}") for text in (settings["data"]["preprocess"], judged(settings)))


def judged(settings):
    return settings["evals"]["eval"]["preprocess"]


@pytest.mark.parametrize("file", PROTOCOLS)
def test_every_target_of_a_protocol_ends_in_what_weights_at_hand_want(file, hidden):
    settings = recipes.closed_loop(file, weights=hidden, model="S/16", **({} if "vtab" in file else {"judges": "v2"}))
    for target in settings["targets"].values():
        found = target["finetune"]
        assert {last(section) for section in (found["data"], *found["evals"].values())} == {"value_range(0, 1)"}
    assert {last(section) for section in settings["evals"].values()} <= {"value_range(0, 1)"}


def test_the_few_shot_size_of_a_protocol_is_that_of_the_weights(hidden):
    def sizes(**arguments):
        evals = recipes.closed_loop("transfer/protocol.py", datasets="cifar10", **arguments)["evals"]
        return {tuple(recipes.stages(section["preprocess"])[1:3]) for section in evals.values()}

    assert sizes() == {("resize(256)", "central_crop(224)")}
    assert sizes(weights=hidden) == {("resize(37)", "central_crop(32)")}
    assert sizes(weights=hidden, fewshot_size="384") == {("resize(448)", "central_crop(384)")}


@pytest.mark.parametrize("file", ["transfer/imagenet.py", "transfer/fewshot.py"])
def test_a_judge_is_of_the_model_that_the_weights_are_of(file, hidden):
    model = recipes.load(file, weights=hidden)["model"]
    wanted = dict(experiment.expects(str(hidden)).model, pre_logits=True)
    assert {key: model[key] for key in wanted} == wanted and model["image_size"] == 32
    assert recipes.load(file, weights=hidden, hidden="no")["model"]["pre_logits"] is False
    assert recipes.load(file, weights=hidden, size="64")["model"]["image_size"] == 64


def run(settings, image_size, text, **changes):
    """A recipe of seconds: small, one step on digits."""
    small = recipes.shrink(settings)
    preprocess = f"decode(channels=3) | resize({image_size}) | {text}"
    changes = {
        "model.image_size": image_size,
        "data.source": "digits",
        "data.split": "train",
        "data.arguments": {},
        "data.preprocess": preprocess,
        "evals": {},
        "train.total": 1,
        "checkpoint.every": None,
        "schedule.warmup": 0,
        **changes,
    }
    return config.replaced(small, changes)


@pytest.mark.parametrize("file", ["transfer/finetune.py", "transfer/vtab.py"])
def test_the_positions_and_pool_of_a_plain_vit_are_followed(file, tmp_path, shared):
    path = test_predict.ours(tmp_path / "w.safetensors", pool="gap", position="sincos2d", pre_logits=True)
    for pool in ({"pool": "gap"}, {}):
        recipe = recipes.load(file, model="S/16", weights=path, **pool)
        model = setups.prepare(run(recipe, 64, last(recipe["data"])), shared).settings["model"]
        assert (model["pool"], model["position"], model["pre_logits"]) == ("gap", "sincos2d", False)


@pytest.mark.slow  # two runs
def test_a_run_of_the_plain_vit_is_fine_tuned_with_its_pool_and_its_fixed_positions(tmp_path, shared):
    before = run(recipes.load("vit/plain.py"), 32, "value_range(-1, 1)")
    experiment.train(before, tmp_path / "plain", quiet=True, shared=shared)
    recipe = recipes.load("transfer/finetune.py", model="S/16", pool="gap", weights=tmp_path / "plain")
    after = run(recipe, 64, last(recipe["data"]), **{"schedule.base": 0.0})
    experiment.train(after, tmp_path / "fine", quiet=True, shared=shared)
    old, new = (weights.load(tmp_path / name).params for name in ("plain", "fine"))
    assert set(old) - set(new) == {"pre_logits/kernel", "pre_logits/bias"} and "position" not in new
    for path in set(new) - {"head/kernel", "head/bias"}:
        np.testing.assert_array_equal(old[path], new[path])


@pytest.mark.slow  # two evaluations
@pytest.mark.parametrize("pre_logits", [True, False])
def test_weights_are_judged_whole_by_the_few_shot_recipe(pre_logits, tmp_path, shared):
    scaling = "decode | resize(32) | value_range(0, 1)"
    path = test_predict.ours(tmp_path / "w.safetensors", preprocess=scaling, pre_logits=pre_logits, pool="gap")
    settings = recipes.load("transfer/fewshot.py", weights=path, datasets="dtd")
    section = settings["evals"]["dtd_fewshot"]
    preprocess = section["preprocess"].replace("decode", "decode(channels=3)")
    evals = {"dtd_fewshot": dict(section, source="digits", preprocess=preprocess, shots=(1,), seeds=1)}
    found = experiment.evaluate(dict(settings, evals=evals), str(path), shared=shared)
    assert 0 <= found["dtd_fewshot/1shot"] <= 1
