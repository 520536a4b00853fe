"""Activation and epsilons follow the weights, are stored, and an own choice is kept with a word."""

import json

import numpy as np
import pytest

from tests.experiment import small
from tests.transfer import hub_cache
from transformer_jax import config, experiment, types
from transformer_jax.experiment import agreement, changes, sections, setup, weights
from transformer_jax.training import storage
from transformer_jax.transfer import convert, formats

ERF = {"model.activation": "gelu_erf", "model.norm_epsilon": "1e-12"}


@pytest.fixture(scope="module")
def erf(tmp_path_factory, shared):
    """A run whose model has the exact GELU and a tiny epsilon."""
    folder = tmp_path_factory.mktemp("erf")
    experiment.train(small.tiny(**ERF, **{"train.total": "2"}), folder, quiet=True, shared=shared)
    return folder


def model_of_checkpoint(folder, step):
    return storage.read_meta(folder / "checkpoints" / str(step))["config"]["model"]


def test_an_experiment_leaves_conventions_open_and_a_run_stores_them(shared):
    settings = small.tiny(**{"train.total": "2"})
    assert settings["model"]["activation"] is None and settings["model"]["norm_epsilon"] is None
    prepared = setup.prepare(settings, shared)
    assert prepared.settings["model"]["activation"] == "gelu_tanh"
    assert prepared.settings["model"]["norm_epsilon"] == 1e-6
    assert prepared.program.model.config.activation == "gelu_tanh"
    without = experiment.without_data(settings, shared)
    assert without.model.config.norm_epsilon == 1e-6


def test_a_fine_tuning_run_follows_its_weights_and_saves_what_it_followed(erf, tmp_path, shared, caplog):
    experiment.train(
        small.tiny(**{"train.total": "2", "init_from.path": str(erf)}), tmp_path, quiet=True, shared=shared
    )
    saved = model_of_checkpoint(tmp_path, 2)
    assert (saved["activation"], saved["norm_epsilon"]) == ("gelu_erf", 1e-12)
    assert "is kept" not in caplog.text


def test_an_own_choice_is_kept_with_one_line(erf, shared, caplog):
    own = small.tiny(**{"init_from.path": str(erf), "model.activation": "gelu_tanh"})
    agreement.warn.cache_clear()
    for _ in range(2):
        model = setup.prepare(own, shared).settings["model"]
        assert (model["activation"], model["norm_epsilon"]) == ("gelu_tanh", 1e-12)
    lines = [record.getMessage() for record in caplog.records if "is kept" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("config.model.activation='gelu_tanh' is kept") and "'gelu_erf'. Leave it out" in lines[0]


def test_evaluate_judges_with_the_conventions_of_the_checkpoint(erf, shared):
    """Left out, they give the numbers of the run; set otherwise, others: the setting reaches the program."""
    lines = [json.loads(line) for line in (erf / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["val/loss"] for line in reversed(lines) if "val/loss" in line)
    followed = experiment.evaluate(small.tiny(), str(erf), shared=shared)
    assert followed["val/loss"] == pytest.approx(loss, rel=1e-6)
    own = experiment.evaluate(small.tiny(**{"model.norm_epsilon": "0.5"}), str(erf), shared=shared)
    assert own["val/loss"] != followed["val/loss"]


def test_evaluate_lists_a_missing_checkpoint_with_the_other_problems(tmp_path):
    lost = small.tiny(**{"evals.val.source": f"folder:{tmp_path}/none"})
    with pytest.raises(types.InputError) as error:
        experiment.evaluate(lost, str(tmp_path / "ViT-B_16.npz"))
    told = str(error.value)
    assert f"{tmp_path}/none" in told and "--checkpoint: " in told and "vit_models/imagenet21k/ViT-B_16.npz" in told


def test_a_run_continues_although_its_conventions_were_open_or_unknown_then(tmp_path, erf, shared):
    follow = {"train.total": "2", "evals.val": "None", "init_from.path": str(erf)}
    experiment.train(small.tiny(**follow), tmp_path, quiet=True, shared=shared)
    longer = {**follow, "train.total": "3", "resume_allow": "('train.total',)"}
    experiment.train(small.tiny(**longer), tmp_path, quiet=True, shared=shared)
    assert model_of_checkpoint(tmp_path, 3)["activation"] == "gelu_erf"
    older = config.plain(experiment.resolve(small.get_config()))
    del older["model"]["norm_epsilon"], older["model"]["activation"]  # of a version that did not know them
    model = changes._as_now(older)["model"]
    assert (model["activation"], model["norm_epsilon"]) == ("gelu_tanh", 1e-6)


def test_a_layout_tells_what_no_config_says():
    source = convert.Source({}, conventions={"activation": "gelu_erf", "norm_epsilon": 1e-12})
    assert weights.conventions(source) == {"activation": "gelu_erf", "norm_epsilon": 1e-12}
    saved = convert.Source({}, meta={"config": {"model": {"activation": "relu"}}}, conventions=source.conventions)
    assert weights.conventions(saved)["activation"] == "relu"
    settings = sections.settled(small.tiny(), weights.conventions(source))
    assert settings["model"]["activation"] == "gelu_erf"
    assert sections.restore(config.plain(settings)) == settings


def test_a_name_of_the_hub_is_resolved_before_anything_is_built(tmp_path, monkeypatch, shared):
    hub_cache.use(monkeypatch, tmp_path / "hub")
    lost = small.tiny(**{"init_from.path": "hf:org/vit"})
    with pytest.raises(types.InputError, match="config.init_from.path: hf:org/vit is not on this machine.*hf download"):
        setup.prepare(lost, shared)
    with pytest.raises(types.InputError, match="--checkpoint: hf:org/vit is not on this machine"):
        experiment.evaluate(small.tiny(), "hf:org/vit")
    formats.write_safetensors(
        tmp_path / "w", {"blocks/0/norm1/scale": np.ones(4)}, {"model": {"name": "vit", "activation": "relu"}}
    )
    hub_cache.write(tmp_path / "hub", "org/vit", {"model.safetensors": (tmp_path / "w").read_bytes()})
    assert setup.prepare(lost, experiment.Shared()).settings["model"]["activation"] == "relu"
