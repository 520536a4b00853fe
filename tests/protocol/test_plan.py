"""What a protocol file may say, and what is refused before anything runs."""

import ml_collections
import pytest

from tests.experiment import small
from transformer_jax import types
from transformer_jax.protocol import plan


def raw(**changes):
    """A protocol of one target, fine-tuned only, from published weights."""
    finetune = small.get_config().to_dict()
    finetune["evals"]["eval"] = finetune["evals"].pop("val")
    finetune["init_from"] = dict(path="weights.npz")
    target = dict(finetune=finetune, finetune_grid=(1e-3, 1e-2), train="train", dev="validation", final="train")
    target |= changes.pop("target", {})
    return ml_collections.ConfigDict(dict(name="p", weights="weights.npz", targets=dict(digits=target)) | changes)


def test_scratch_and_probe_are_left_out_unless_they_are_named():
    settings = plan.resolve(raw())
    target = plan.Target(**settings["targets"]["digits"])
    assert list(target.methods()) == ["finetune"] and target.probe_l2 == ()
    assert settings["targets"]["digits"]["finetune"]["train"]["loss"] == "softmax", "defaults are filled in"


def test_a_grid_holds_rates_or_settings():
    grid = ({"schedule.base": 0.01, "train.total": 500}, 0.1)
    settings = plan.resolve(raw(target=dict(finetune_grid=grid)))
    found = plan.choices(settings["targets"]["digits"]["finetune_grid"])
    assert found == [{"schedule.base": 0.01, "train.total": 500}, {"schedule.base": 0.1}]
    assert [plan.folder_name(choice) for choice in found] == ["lr_0.01_total_500", "lr_0.1"]


def test_an_override_reaches_into_a_target():
    settings = plan.resolve(raw(), {"targets.digits.finetune.train.total": "7", "targets.digits.seeds": "2"})
    assert settings["targets"]["digits"]["finetune"]["train"]["total"] == 7
    assert settings["targets"]["digits"]["seeds"] == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(weights=None), "a section pretrain, or weights"),
        (dict(pretrain=small.get_config().to_dict()), "one of the two"),
        (dict(seeds=0), "at least one seed"),
        (dict(target=dict(seeds=0)), r"targets\.digits\.seeds is 0"),
        (dict(target=dict(finetune_grid=())), "at least one learning rate"),
        (dict(target=dict(finetune_grid=({"schedule.bass": 1.0},))), "Did you mean 'schedule.base'"),
        (dict(target=dict(finetune_grid=({"train.total": True},))), "config.train.total must be"),
        (dict(target=dict(select="v2/top1")), r"targets\.digits\.select is 'v2/top1'.*Did you mean 'eval/top1'"),
        (dict(target=dict(select="eval/loss")), "is an accuracy of an evaluator"),
        (dict(target=dict(finetune_grid=({"seed": 1},))), "The protocol sets seed itself"),
        (dict(groups=dict(all=["digits"])), "'all' is the mean over all"),
        (dict(target=dict(scratch=raw().targets.digits.finetune.to_dict(), scratch_grid=(1.0,))), "scratch has none"),
        (dict(groups=dict(natural=["digits", "birds"])), r"config\.groups\.natural has \['birds'\]"),
        (dict(evals=dict(knn=dict(kind="nn"))), "config.evals.knn.kind must be one of"),
    ],
)
def test_a_plan_that_makes_no_sense_is_one_clear_error(changes, message):
    with pytest.raises(types.InputError, match=message):
        plan.resolve(raw(**changes))
