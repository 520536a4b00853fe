"""One small experiment through its whole life."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from tests.experiment import small
from transformer_jax import experiment, types
from transformer_jax.experiment import rundir
from transformer_jax.training import checkpoint, failures, preemption, reporting, storage
from transformer_jax.transfer import formats

BEST = {"checkpoint.keep_best": "('val/top1', 'max')"}
MIDDLE = {"checkpoint.every": "3", "checkpoint.keep_last": "2"}


def state_of(folder):
    leaves, meta = checkpoint.load_leaves(folder)
    return leaves, meta


def metrics_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall" and not k.startswith("time/")} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Six undisturbed steps."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, experiment.train(small.tiny(**MIDDLE), folder)


def test_a_run_directory_holds_what_the_design_says(finished):
    folder, metrics = finished
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "run.json", "metrics.jsonl", "checkpoints", "report.html", "tensorboard"} <= names
    assert json.loads((folder / "config.json").read_text())["model"]["num_classes"] == 10
    assert metrics["val/examples"] == 180.0 and np.isfinite(metrics["train/loss"])
    assert [line["step"] for line in metrics_of(folder) if "train/loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_run_continued_in_the_middle_equals_the_undisturbed_one_bit_for_bit(finished, tmp_path, shared):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    experiment.train(small.tiny(**MIDDLE), tmp_path / "run", shared=shared, quiet=True)
    expected, found = state_of(folder), state_of(tmp_path / "run")
    assert found[1]["examples"] == expected[1]["examples"] == 96
    assert {name.split("/")[0] for name in found[0]} == {"params", "optimizer", "average", "step", "key"}
    for name, leaf in expected[0].items():
        np.testing.assert_array_equal(found[0][name], leaf, err_msg=name)
    assert metrics_of(tmp_path / "run") == metrics_of(folder)


def test_a_setting_that_shapes_the_run_may_not_change_unasked(finished, tmp_path, shared):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    longer = {**MIDDLE, "train.total": "8"}
    with pytest.raises(types.InputError, match=r"train.total \(6 -> 8\) changed.*resume_allow=\"\('train.total',\)\""):
        experiment.train(small.tiny(**longer), tmp_path / "run", shared=shared, quiet=True)
    experiment.train(small.tiny(**longer, resume_allow="('train.total',)"), tmp_path / "run", shared=shared, quiet=True)
    assert state_of(tmp_path / "run")[1]["step"] == 8


def test_another_batch_size_leaves_a_length_in_epochs_what_it_is(tmp_path):
    """Two epochs of 180 examples, 11 steps of 16 first: 360 examples in the end, the rate where it belongs."""
    two = {"data.split": "validation", "evals.val": "None", "checkpoint.every": "11", "schedule.warmup": "0"}
    first = small.tiny(**{**two, "train.total": "2 epochs"})
    experiment.train(first, tmp_path, quiet=True)
    shutil.rmtree(tmp_path / "checkpoints" / "22")
    changed = {"data.batch_size": "32", "resume_allow": "('data.batch_size',)"}
    experiment.train(small.tiny(**{**two, "train.total": "2 epochs"}, **changed), tmp_path, quiet=True)
    _, meta = state_of(tmp_path)
    assert meta["step"] == 11 + 6 and meta["examples"] == 11 * 16 + 6 * 32
    rates = {line["step"]: line["learning_rate"] for line in metrics_of(tmp_path)}
    whole = [0.5 * 1e-3 * (1 + np.cos(np.pi * step * 16 / 352)) for step in range(23)]
    for step in (12, 13, 17):  # the rate of a step is that of the examples before it
        assert rates[step] == pytest.approx(whole[11 + 2 * (step - 12)], rel=1e-5)


def test_one_hot_labels_train_and_are_not_judged(tmp_path):
    rows = {"data.preprocess": "value_range(-1, 1) | onehot(10)"}
    found = [
        experiment.train(small.tiny(**change), tmp_path / str(i), quiet=True, keep=False)
        for i, change in enumerate([rows, {"data.preprocess": "value_range(-1, 1)"}])
    ]
    assert found[0]["train/loss"] == pytest.approx(found[1]["train/loss"], rel=1e-5)
    assert "one step on fake data: loss 2.3" in experiment.rehearse(small.tiny(**rows))


def test_a_few_shot_evaluator_reads_a_data_set_of_other_classes(finished, tmp_path):
    folder, _ = finished
    raw = small.get_config()
    raw.evals = {
        "few": dict(
            kind="fewshot",
            source="glyphs",
            arguments=dict(size=600, image_size=8),
            train_split="train[:500]",
            test_split="train[500:]",
            preprocess="value_range(-1, 1)",
            batch_size=64,
            shots=(1, 2),
            seeds=2,
        )
    }
    few = experiment.resolve(raw)
    scores = experiment.train(few, tmp_path, quiet=True, keep=False)
    assert set(scores) >= {"few/1shot", "few/2shot"}
    again = experiment.evaluate(few, str(folder))
    assert set(again) == {"few/1shot", "few/2shot"} and 0 < again["few/2shot"] <= 1
    params, _ = checkpoint.load_params(folder, average=True)
    headless = {name: leaf for name, leaf in params.items() if not name.startswith("head/")}
    formats.write_safetensors(tmp_path / "headless.safetensors", headless, {})
    assert experiment.evaluate(few, str(tmp_path / "headless.safetensors")) == again
    few["evals"]["few"]["seeds"] = 0
    with pytest.raises(types.InputError, match="config.evals.few.seeds must be at least 1"):
        experiment.evaluate(few, str(folder))


@pytest.mark.parametrize("every", ["None", "4", "50%"])
def test_every_checkpoint_is_judged_where_the_best_is_kept(every, tmp_path, shared):
    keep = {"checkpoint.every": "2", "checkpoint.keep_last": "5", "evals.val.every": every}
    experiment.train(small.tiny(**BEST, **keep), tmp_path, shared=shared, quiet=True)
    saved = {step: storage.read_meta(tmp_path / "checkpoints" / step)["metrics"] for step in ("2", "4", "6")}
    assert all("val/top1" in metrics for metrics in saved.values())


def test_top5_of_four_classes_cannot_be_the_best_metric(tmp_path, shared):
    for split in ("train", "val"):
        for label in "abcd":
            (tmp_path / split / label).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / split / label / "1.png")
    raw = small.get_config()
    raw.data.update(source=f"folder:{tmp_path}", preprocess="decode(1) | value_range(-1, 1)", batch_size=8)
    raw.evals.val.update(source=f"folder:{tmp_path}", split="val", preprocess="decode(1) | value_range(-1, 1)")
    raw.checkpoint = dict(keep_best=("val/top5", "max"))
    with pytest.raises(types.InputError, match="There are: val/top1, val/loss"):
        experiment.train(experiment.resolve(raw), tmp_path / "run", shared=shared, quiet=True)


def test_numbers_of_a_few_shot_evaluator_are_checked(tmp_path, shared):
    raw = small.get_config()
    raw.evals.val = dict(kind="fewshot", source="digits", preprocess="value_range(-1, 1)", batch_size=64, seeds=0)
    with pytest.raises(types.InputError, match="config.evals.val.seeds must be at least 1: it is 0"):
        experiment.train(experiment.resolve(raw), tmp_path, shared=shared, quiet=True)


def test_a_run_that_is_not_kept_leaves_no_checkpoint_but_continues_after_a_stop(
    finished, tmp_path, monkeypatch, shared
):
    folder, _ = finished
    settings = small.tiny(**{"checkpoint.every": "2"})
    reached = []
    record = reporting.JsonLines.write

    def stop_at_4(self, step, values):
        record(self, step, values)
        if step == 4 and not reached and "train/loss" in values:
            reached.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(reporting.JsonLines, "write", stop_at_4)
    with pytest.raises(preemption.Preempted):
        experiment.train(settings, tmp_path, quiet=True, keep=False, shared=shared)
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps()[0] >= 4
    experiment.train(settings, tmp_path, quiet=True, keep=False, shared=shared)
    assert not list(tmp_path.glob("checkpoints*"))
    assert metrics_of(tmp_path) == metrics_of(folder)


def test_a_run_that_diverges_and_is_not_kept_leaves_no_checkpoint(tmp_path, shared):
    settings = small.tiny(**{"checkpoint.every": "1", "schedule.base": "1e30", "schedule.warmup": "0"})
    with pytest.raises(failures.Diverged):
        experiment.train(settings, tmp_path, quiet=True, keep=False, shared=shared)
    assert not list(tmp_path.glob("checkpoints*"))


def test_with_default_settings_a_corrupt_checkpoint_costs_steps_and_not_the_run(tmp_path, shared):
    settings = small.tiny(**{"checkpoint.every": "2"})
    experiment.train(settings, tmp_path, shared=shared, quiet=True)
    files = [path for path in (tmp_path / "checkpoints" / "6" / "state" / "d").rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.warns(UserWarning, match="is corrupt"):
        experiment.train(settings, tmp_path, shared=shared, quiet=True)
    assert (tmp_path / "checkpoints" / "6.corrupt").exists() and state_of(tmp_path)[1]["step"] == 6


def test_weights_are_judged_at_the_size_they_were_trained_at(finished, shared):
    folder, _ = finished
    sizes = {name: "resize(16) | value_range(-1, 1)" for name in ("data.preprocess", "evals.val.preprocess")}
    with pytest.raises(types.InputError, match=r"judged as they were trained.*position: 1 \+ 2 x 2 -> 1 \+ 4 x 4"):
        experiment.evaluate(small.tiny(**sizes, **{"model.image_size": "16"}), str(folder), shared=shared)


@pytest.mark.parametrize(
    "changes",
    [{"model.dropout": "0.0", "model.stochastic_depth": "0.0", "train.mixup": "0.0", "train.cutmix": "0.0"}, {}],
)
def test_accumulation_may_change_where_it_changes_nothing(changes, tmp_path, shared):
    experiment.train(small.tiny(**changes, **{"train.total": "2"}), tmp_path, shared=shared, quiet=True)
    more = small.tiny(**changes, **{"train.total": "3", "resume_allow": "('train.total',)", "train.accumulate": "2"})
    if changes:
        experiment.train(more, tmp_path, shared=shared, quiet=True)
    else:
        with pytest.raises(types.InputError, match=r"train.accumulate \(1 -> 2\) changed"):
            experiment.train(more, tmp_path, shared=shared, quiet=True)


def test_a_setting_newer_than_the_checkpoint_has_its_default(finished, tmp_path, shared):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    for step in (3, 6):
        place = tmp_path / "run" / "checkpoints" / str(step)
        saved = storage.read_meta(place)["config"]
        del saved["model"]["qk_norm"]
        storage.amend_meta(place, {"config": saved})
    experiment.train(small.tiny(**MIDDLE), tmp_path / "run", shared=shared, quiet=True)


@pytest.mark.parametrize(
    "changes, setting",
    [({"optim.name": "sgd"}, r"optim.name \('adamw' -> 'sgd'\)"), ({"model.width": "32"}, r"model.width \(16 -> 32\)")],
)
def test_a_change_that_makes_other_arrays_is_told_as_a_setting(finished, changes, setting, shared):
    folder, _ = finished
    with pytest.raises(types.InputError, match=f"{setting}.* changed"):
        experiment.train(small.tiny(**MIDDLE, **changes), folder, shared=shared, quiet=True)


def test_a_continued_run_reads_on_where_it_stopped_with_another_batch_size(finished, tmp_path, shared):
    experiment.train(small.tiny(**{"train.total": "3"}), tmp_path, shared=shared, quiet=True)
    changed = small.tiny(
        **{"data.batch_size": "32", "train.total": "4", "resume_allow": "('data.batch_size', 'train.total')"}
    )
    experiment.train(changed, tmp_path, quiet=True)  # not shared: a batch of another size is another program
    assert state_of(tmp_path)[1]["examples"] == 3 * 16 + 32


def test_resume_required_fails_in_an_empty_directory(tmp_path, shared):
    with pytest.raises(types.InputError, match="resume='required' needs a checkpoint"):
        experiment.train(small.tiny(resume="required"), tmp_path, shared=shared, quiet=True)


def test_init_from_starts_at_step_0_with_a_resized_position_embedding(finished, tmp_path, capsys, shared):
    folder, _ = finished
    larger = small.tiny(
        **{
            "init_from.path": str(folder),
            "model.image_size": "16",
            "data.preprocess": "resize(16) | value_range(-1, 1)",
            "evals.val.preprocess": "resize(16) | value_range(-1, 1)",
            "train.total": "1",
            "schedule.base": "0.0",
            "schedule.warmup": "0",
        }
    )
    experiment.train(larger, tmp_path, shared=shared)
    said = capsys.readouterr().out
    assert "position: 1 + 2 x 2 -> 1 + 4 x 4 tokens" in said
    before, after = checkpoint.load_params(folder, average=True)[0], checkpoint.load_params(tmp_path)[0]
    np.testing.assert_array_equal(after["blocks/1/mlp/up/kernel"], before["blocks/1/mlp/up/kernel"])
    assert after["position"].shape == (17, 16)


def test_a_classifier_at_chance_before_fine_tuning_is_warned_about(finished, tmp_path, caplog, shared):
    folder, _ = finished
    again = small.tiny(**{"init_from.path": str(folder), "train.total": "2"})
    experiment.train(again, tmp_path, quiet=True, keep=False, shared=shared)
    assert "no better than guessing among 10 classes" in caplog.text


def test_evaluate_gives_the_number_that_training_reported(finished, shared):
    folder, metrics = finished
    scores = experiment.evaluate(small.tiny(), str(folder), shared=shared)
    assert scores["val/top1"] == metrics["val/top1"]
    assert scores["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-6)


def test_evaluate_needs_no_training_data(finished, shared):
    folder, metrics = finished
    elsewhere = small.tiny(**{"data.source": "tfds:not_here"})
    assert experiment.evaluate(elsewhere, str(folder), shared=shared)["val/top1"] == metrics["val/top1"]


def test_everything_that_is_missing_is_listed_at_once(tmp_path, shared):
    lost = small.tiny(
        **{
            "data.source": "tfds:no_such_set",
            "evals.val.source": f"folder:{tmp_path}/none",
            "init_from.path": str(tmp_path / "weights.npz"),
        }
    )
    with pytest.raises(types.InputError) as error:
        experiment.train(lost, tmp_path / "run", shared=shared, quiet=True)
    assert all(
        word in str(error.value) for word in ("no_such_set", f"{tmp_path}/none", "weights.npz", "1.", "2.", "3.")
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.num_classes": "7"}, "config.model.num_classes=7, the data has 10"),
        ({"model.image_size": "16"}, r"makes \(height, width, channels\) \(8, 8, 1\), the model takes \(16, 16, 1\)"),
        ({"data.batch_size": "12"}, "12 examples over 8"),
        ({"schedule.warmup": "7"}, "Warm-up and cooldown must fit into the run"),
        ({"data.preprocess": "flip_rl"}, "'flip_rl' is not a preprocessing op. Did you mean 'flip_lr'"),
        ({"optim.freeze": "('blcks/.*',)"}, "'blcks/.*' matches none"),
        ({"optim.freeze": "('[',)"}, "A pattern must be a regular expression: '\\['"),
        ({"train.accumulate": "0"}, "train.accumulate must be a divisor of data.batch_size=16: it is 0"),
        ({"train.accumulate": "3"}, "train.accumulate must be a divisor of data.batch_size=16: it is 3"),
        ({"train.log_every": "0"}, "config.train.log_every must be at least one step: it is 0"),
        (
            {"evals.val.preprocess": "value_range(-1, 1) | onehot(10)"},
            r"evals.val.preprocess makes labels of shape \(10,\)",
        ),
        (
            {"data.preprocess": "value_range(-1, 1) | onehot(7)"},
            r"data.preprocess makes labels of shape \(7,\), there are 10",
        ),
        ({"optim.multipliers": "('head/.*', 10.0)"}, "A rule is a pattern, or a pair.*10.0 is neither"),
        ({"train.average": "2.0"}, "train.average must be between 0 and 1"),
        ({"checkpoint.keep_best": "('val/topl', 'max')"}, "keep_best must be a metric.*Did you mean.*'val/top1'"),
        ({"init_from.path": "gs://bucket/B_16.npz"}, "read from local files: gs://bucket/B_16.npz.*gcloud storage cp"),
        ({"checkpoint.every": "0"}, "config.checkpoint.every must be at least one step: it is 0"),
        ({"model.heads": "0"}, "heads must be at least 1: it is 0"),
        ({"evals.val.preprocess": "value_range(0, 1)"}, "End both in the same value_range"),
        ({"evals.val.source": "glyphs"}, "the model takes|has 62"),
    ],
)
def test_a_configuration_that_cannot_run_stops_before_anything_is_compiled(
    changes, message, tmp_path, monkeypatch, shared
):
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("compiled"))
    with pytest.raises(types.InputError, match=message):
        experiment.train(small.tiny(**changes), tmp_path, shared=shared, quiet=True)


def test_a_program_for_fake_batches_keeps_the_ranges_too(shared):
    with pytest.raises(types.InputError, match="a divisor of data.batch_size=16: it is 3"):
        experiment.without_data(small.tiny(**{"train.accumulate": "3"}), shared)


def test_a_finished_run_gives_its_numbers_again(finished, shared):
    folder, metrics = finished
    again = experiment.train(small.tiny(**MIDDLE), folder, shared=shared, quiet=True)
    assert again["val/top1"] == metrics["val/top1"] and again["train/loss"] == metrics["train/loss"]


def test_two_processes_do_not_train_in_one_directory(tmp_path, shared):
    with rundir.alone(tmp_path), pytest.raises(types.InputError, match="another one is at work in"):
        experiment.train(small.tiny(), tmp_path, shared=shared, quiet=True)


def test_a_workdir_that_cannot_be_written_is_bad_input(tmp_path, shared):
    (tmp_path / "file").write_text("")
    with pytest.raises(types.InputError, match="--workdir must be a directory"):
        experiment.train(small.tiny(), tmp_path / "file", shared=shared, quiet=True)


def test_an_evaluation_batch_of_any_size_gives_the_same_numbers(finished):
    folder, metrics = finished
    scores = experiment.evaluate(small.tiny(**{"evals.val.batch_size": "50"}), str(folder))
    assert (scores["val/top1"], scores["val/loss"]) == (metrics["val/top1"], metrics["val/loss"])


def test_a_rehearsal_steps_once_and_writes_nothing(tmp_path, monkeypatch, shared):
    monkeypatch.chdir(tmp_path)
    said = experiment.rehearse(small.tiny(), shared=shared)
    assert "one step on fake data: loss 2.3" in said
    assert not list(tmp_path.iterdir())


def test_runs_that_differ_in_data_rate_seed_and_length_share_one_program(tmp_path, shared):
    first = experiment.prepare(small.tiny(), shared).program
    other = small.tiny(**{"schedule.base": "0.1", "seed": "7", "train.total": "9", "data.split": "validation"})
    assert experiment.prepare(other, shared).program is first
    assert experiment.prepare(small.tiny(**{"model.depth": "1"}), shared).program is not first


def test_the_step_and_the_evaluation_are_traced_once_over_two_epochs(tmp_path):
    """180 examples in batches of 16 do not divide; neither do they in evaluation batches of 64."""
    shared = experiment.Shared()
    settings = small.tiny(
        **{"data.split": "validation", "train.total": "2 epochs", "evals.val.every": "5", "schedule.base": "0.001"}
    )
    experiment.train(settings, tmp_path, shared=shared, quiet=True, keep=False)
    program = experiment.prepare(settings, shared).program
    assert len(program.step.__wrapped__.__wrapped__.signatures) == 1
    assert len(program.predict.__wrapped__.__wrapped__.signatures) == 1
