"""Every kind of evaluator in an experiment: its numbers can be recomputed from the predictions that it leaves."""

import numpy as np
import pytest
from PIL import Image

from tests.experiment import small
from transformer_jax import experiment, types
from transformer_jax.data import sources
from transformer_jax.evaluation import classification
from transformer_jax.training import checkpoint
from transformer_jax.transfer import formats

DIGITS = dict(source="digits", preprocess="value_range(-1, 1)", batch_size=64, predictions=True)
FROZEN = dict(DIGITS, train_split="train[:400]", test_split="validation")
KINDS = dict(
    val=dict(DIGITS, split="validation"),
    real=dict(DIGITS, kind="multilabel", split="validation", preprocess="value_range(-1, 1) | onehot(10)"),
    few=dict(FROZEN, kind="fewshot", shots=(1, 5), seeds=2),
    near=dict(FROZEN, kind="knn", k=(1, 10)),
    probe=dict(FROZEN, kind="probe", l2=(0.01, 1.0)),
)


def _settings(evals, **changes):
    raw = small.get_config()
    raw.evals = evals
    return experiment.resolve(raw, changes)


@pytest.fixture(scope="module")
def two_digits(tmp_path_factory):
    """The threes and sevens of the validation split as a folder of images."""
    root = tmp_path_factory.mktemp("digits")
    source = sources.open_source("digits", "validation")
    for index in range(len(source)):
        example = source[index]
        if example["label"] in (3, 7):
            folder = root / source.class_names[example["label"]]
            folder.mkdir(exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(folder / f"{index:04}.png")
    return root


def _subset(folder, **changes):
    section = dict(source=f"folder:{folder}", split="train", preprocess="decode(1) | value_range(-1, 1)", batch_size=64)
    return dict(section, kind="classification", subset=True, predictions=True, **changes)


@pytest.fixture(scope="module")
def finished(two_digits, tmp_path_factory, shared):
    folder = tmp_path_factory.mktemp("judged")
    settings = _settings(dict(KINDS, two=_subset(two_digits)), **{"train.total": "40", "schedule.base": "0.01"})
    return folder, settings, experiment.train(settings, folder, shared=shared, quiet=True)


def _rows(folder, name):
    with np.load(folder / "predictions" / f"{name}.npz") as file:
        return dict(file)


def test_every_number_is_recomputed_from_the_saved_predictions(finished):
    folder, _, metrics = finished
    source = sources.open_source("digits", "validation")
    rows = {name: _rows(folder, name) for name in KINDS}
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == sorted(
        f"{name}.npz" for name in (*KINDS, "two")
    )
    labels = source.labels()
    for name in ("val", "few", "near", "probe"):
        np.testing.assert_array_equal(rows[name]["label"], labels)
    right = rows["val"]["predicted"] == labels
    assert metrics["val/top1"] == right.mean() > 0
    assert metrics["val/loss"] == pytest.approx(rows["val"]["loss"].mean(), rel=1e-5)
    hits = rows["real"]["label"][np.arange(180), rows["real"]["predicted"]]
    assert metrics["real/top1"] == hits[rows["real"]["label"].any(axis=1)].mean() == metrics["val/top1"]
    for shots in (1, 5):
        each = [(rows["few"][f"predicted_{shots}shot_seed{seed}"] == labels).mean() for seed in (0, 1)]
        assert metrics[f"few/{shots}shot"] == pytest.approx(np.mean(each), abs=1e-15)
    for k in (1, 10):
        assert metrics[f"near/{k}nn"] == (rows["near"][f"predicted_{k}nn"] == labels).mean() > 0.2
    assert metrics["probe/top1"] == (rows["probe"]["predicted"] == labels).mean() > 0.4
    assert metrics["probe/l2"] in (0.01, 1.0) and metrics["probe/examples"] == 180


def test_a_subset_is_judged_among_its_own_classes(finished, two_digits):
    folder, settings, metrics = finished
    rows, whole = _rows(folder, "two"), _rows(folder, "val")
    labels = sources.open_source("digits", "validation").labels()
    assert metrics["two/examples"] == np.isin(labels, (3, 7)).sum() == len(rows["label"])
    np.testing.assert_array_equal(np.bincount(rows["label"]), np.bincount(labels)[[3, 7]])
    assert metrics["two/top1"] == (rows["predicted"] == rows["label"]).mean()
    # With fewer classes to choose from, a prediction that was one of them stays.
    both = [np.flatnonzero(labels == digit) for digit in (3, 7)]
    before = np.concatenate(both)
    kept = np.isin(whole["predicted"][before], (3, 7))
    np.testing.assert_array_equal(np.array([3, 7])[rows["predicted"]][kept], whole["predicted"][before][kept])
    alone = dict(settings, evals={"two": settings["evals"]["two"]})
    assert experiment.evaluate(alone, str(folder)) == {k: v for k, v in metrics.items() if k.startswith("two/")}


def test_a_checkpoint_is_judged_with_the_same_numbers_and_rows(finished, tmp_path, shared):
    folder, settings, metrics = finished
    found = experiment.evaluate(settings, str(folder), folder=tmp_path, shared=shared)
    assert found == {name: metrics[name] for name in found}
    assert {name.split("/")[0] for name in found} == {*KINDS, "two"}
    for name in (*KINDS, "two"):
        for key, value in _rows(folder, name).items():
            np.testing.assert_array_equal(_rows(tmp_path, name)[key], value)


def test_accuracies_come_with_the_interval_of_their_examples(finished, shared):
    folder, settings, metrics = finished
    found = experiment.judge(settings, str(folder), shared=shared).with_intervals()
    for name in ("val/top1", "real/top1", "few/5shot", "near/10nn", "probe/top1", "two/top1"):
        assert found[f"{name}_low"] < found[name] == metrics[name] < found[f"{name}_high"]
    assert not any(name.startswith(("val/loss_", "probe/l2_", "val/top5_")) for name in found)
    names = list(found)
    assert names[names.index("val/top1") + 1] == "val/top1_low"


def test_an_interrupted_evaluation_leaves_the_rows_of_the_last_whole_one(finished, tmp_path, monkeypatch, shared):
    _, settings, _ = finished
    alone = dict(settings, evals={"val": settings["evals"]["val"]}, train=dict(settings["train"], total=2))
    experiment.train(alone, tmp_path, shared=shared, quiet=True)
    before = (tmp_path / "predictions" / "val.npz").read_bytes()
    monkeypatch.setattr(classification, "_decide", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.evaluate(alone, str(tmp_path), folder=tmp_path, shared=shared)
    assert (tmp_path / "predictions" / "val.npz").read_bytes() == before
    assert len(list((tmp_path / "predictions").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "real",
            dict(preprocess="value_range(-1, 1)"),
            r"A label is a row of classes here.*evals.real.*multihot\(10\)",
        ),
        ("val", dict(preprocess="value_range(-1, 1) | onehot(10)"), "A label is an integer here.*evals.val"),
        ("few", dict(preprocess="value_range(-1, 1) | onehot(10)"), "A label is an integer here.*evals.few"),
        ("real", dict(source="glyphs", preprocess="value_range(-1, 1) | onehot(62)"), "a class for each label"),
        ("near", dict(k=()), "config.evals.near.k must be one number or more, each at least 1"),
        ("near", dict(temperature=0.0), "config.evals.near.temperature must be above 0"),
        ("near", dict(k=(500,)), "500 nearest neighbours need as many examples.*has 400"),
        ("probe", dict(held_out=1.0), "config.evals.probe.held_out must be between 0 and 1"),
        ("probe", dict(l2=(0.0,)), "config.evals.probe.l2 must be one number or more, each above 0"),
    ],
)
def test_an_evaluator_that_cannot_run_is_one_clear_error(name, change, message, tmp_path, shared):
    settings = _settings({name: {**KINDS[name], **change}})
    with pytest.raises(types.InputError, match=message):
        experiment.rehearse(settings, shared=shared)


def test_the_best_checkpoint_may_be_picked_by_any_kind(shared):
    known = "few/1shot, few/5shot, near/1nn, near/10nn, probe/top1, probe/loss, real/top1, val/top1, val/top5, val/loss"
    settings = _settings(KINDS, **{"checkpoint.keep_best": "('near/5nn', 'max')"})
    with pytest.raises(types.InputError, match=f"There are: {known}"):
        experiment.prepare(settings, shared)
    experiment.prepare(_settings(KINDS, **{"checkpoint.keep_best": "('near/10nn', 'max')"}), shared)


def test_classes_that_the_model_does_not_know_are_listed(two_digits, tmp_path, shared):
    for name in ("3", "seven", "eight"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "1.png")
    with pytest.raises(types.InputError, match="of the 3 of evals.two, 2 are not.*'eight', 'seven'.*knows 10: '0'"):
        experiment.rehearse(_settings(dict(two=_subset(tmp_path))), shared=shared)
    whole = _settings(dict(two=dict(_subset(two_digits), subset=False)))
    with pytest.raises(types.InputError, match="a class for each label"):
        experiment.rehearse(whole, shared=shared)


def test_a_subset_needs_someone_who_names_the_classes(finished, two_digits, tmp_path):
    folder, settings, metrics = finished
    params, _ = checkpoint.load_params(folder, average=True)
    formats.write_safetensors(tmp_path / "nameless.safetensors", params, {})
    model = dict(settings["model"], num_classes=10)
    alone = dict(settings, model=model, evals={"two": settings["evals"]["two"]})
    with pytest.raises(types.InputError, match="nothing names those of the model that evals.two judges"):
        experiment.evaluate(alone, str(tmp_path / "nameless.safetensors"))
    both = dict(alone, evals={name: settings["evals"][name] for name in ("two", "val")})
    assert experiment.evaluate(both, str(tmp_path / "nameless.safetensors"))["two/top1"] == metrics["two/top1"]
