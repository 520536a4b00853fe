import ml_collections
import pytest

from tests.experiment import small
from transformer_jax import config, experiment, types
from transformer_jax.experiment import sections


def test_a_resolved_experiment_holds_every_default():
    settings = small.tiny()
    assert settings["optim"]["b2"] == 0.999
    assert settings["model"]["qk_norm"] is False
    assert settings["evals"]["val"]["kind"] == "classification"
    assert settings["checkpoint"] == {"every": None, "keep_last": 2, "keep_best": None}


def test_resolving_twice_changes_nothing():
    settings = small.tiny()
    assert experiment.resolve(ml_collections.ConfigDict(settings)) == settings


def test_a_saved_experiment_is_restored_from_json():
    settings = small.tiny(resume_allow="('train.total',)")
    assert sections.restore(config.plain(settings)) == settings


@pytest.mark.parametrize(
    "override, message",
    [
        ({"model.widht": "3"}, "--config.model.widht: there is no such setting. Did you mean 'model.width'"),
        ({"optim.nam": "sgd"}, "there is no such setting. Did you mean 'optim.name'"),
        ({"optim.name": "adamax"}, "config.optim.name must be one of sgd, adam, adamw, adafactor, not 'adamax'"),
        ({"optim.momentum": "0.9"}, "--config.optim.momentum: there is no such setting"),
        ({"evals.val.kind": "fewsho"}, "must be one of classification, multilabel, fewshot, knn, probe, not 'fewsho'"),
        ({"train.loss": "hinge"}, "one of 'softmax', 'sigmoid'"),
        ({"data.batch_size": "None"}, "--config.data.batch_size=None: the value must be int"),
        ({"evals.test.split": "test"}, "--config.evals.test.split: there is no such setting. Did you mean"),
    ],
)
def test_a_bad_override_is_one_clear_error(override, message):
    with pytest.raises(types.InputError, match=message):
        small.tiny(**override)


def test_a_name_chooses_the_keywords_that_may_follow():
    settings = small.tiny(**{"optim.name": "sgd", "optim.momentum": "0.5", "optim.weight_decay": "0.0"})
    assert settings["optim"]["momentum"] == 0.5 and "b1" not in settings["optim"]


def test_overriding_a_key_of_init_from_makes_the_section():
    settings = small.tiny(**{"init_from.path": "somewhere"})
    assert settings["init_from"] == {"path": "somewhere", "head": "auto", "position": "align_corners", "patch": "error"}


def test_a_missing_section_is_named():
    raw = ml_collections.ConfigDict(small.tiny())
    del raw["data"]
    with pytest.raises(types.InputError, match="config.data must be given"):
        experiment.resolve(raw)


def test_an_evaluator_is_left_out_with_none():
    assert small.tiny(**{"evals.val": "None"})["evals"] == {}
    with pytest.raises(types.InputError, match="--config.evals.vall: there is no such setting"):
        small.tiny(**{"evals.vall": "None"})
