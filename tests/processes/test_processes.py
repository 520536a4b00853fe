"""Several processes on this machine are one run: it is trained, stopped, killed, spread otherwise, and stays the same.

Every wait is bounded, and no process is left behind.
"""

import fcntl
import json
import os
import signal

import numpy as np
import pytest

from tests.processes import digits, group, worker
from transformer_jax import config, experiment
from transformer_jax.training import checkpoint, exits, preemption

pytestmark = pytest.mark.timeout(900)
STEPS = list(range(1, digits.TOTAL + 1))


def settings(parallel="data"):
    return experiment.resolve(config.load(f"{group.EXPERIMENT}:{parallel}"))


@pytest.fixture(scope="module")
def shared():
    return experiment.Shared()


@pytest.fixture(scope="session")
def worker_id():
    """Which worker of pytest-xdist this is; also without the plugin."""
    return os.environ.get("PYTEST_XDIST_WORKER", "master")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shared, worker_id):
    """The run that one process makes undisturbed, and the ids it reads: made once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "whole"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            with pytest.MonkeyPatch.context() as patch:
                worker.record(folder / "ids", patch.setattr)
                experiment.train(settings(), folder / "run", shared=shared, quiet=True)
            (folder / "done").touch()
    return folder


def assert_same_run(folder, whole):
    """The same examples in the same places, the same curve, the same weights in the end."""
    assert worker.read(folder / "ids") == worker.read(whole / "ids")
    found, wanted = group.numbers(folder / "run"), group.numbers(whole / "run")
    assert found.keys() == wanted.keys() and [step for step, kind in found if kind == "train"] == STEPS
    for key, values in wanted.items():
        assert found[key].keys() == values.keys()
        for name, value in values.items():
            np.testing.assert_allclose(found[key][name], value, rtol=2e-6, atol=2e-6, err_msg=f"{key} {name}")
    (one, _), (two, _) = (checkpoint.load_leaves(place / "run") for place in (folder, whole))
    assert one.keys() == two.keys()
    for path, leaf in two.items():
        np.testing.assert_allclose(one[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def saved(folder):
    return checkpoint.Checkpointer(folder / "run" / "checkpoints").steps()


def test_two_processes_then_one_then_four_make_the_same_run(tmp_path, whole, shared, monkeypatch):
    """SIGTERM to one process of two stops both at one step; one process goes on, then four of another mesh, which stop
    in the middle of an evaluation, then one.

    The newest checkpoint is cut short before the four start: all of them take the older one, and name it.
    """
    run, ids = tmp_path / "run", tmp_path / "ids"
    with group.group(tmp_path / "two", 2, 2, group.train(run, "fsdp"), RECORD=ids, SLOW=0.1) as two:
        two.until(lambda: group.step(run) >= 2)
        two.processes[1].send_signal(signal.SIGTERM)
        assert two.ended() == [exits.PREEMPTED] * 2, two.said()
    first = saved(tmp_path)[0]
    assert 2 <= first < digits.TOTAL - 2 and group.step(run) == first

    with preemption.listen() as stop:
        worker.record(ids, monkeypatch.setattr, told=lambda at: stop.request() if at >= 16 * (first + 1) else None)
        with pytest.raises(preemption.Preempted):
            experiment.train(settings(), run, shared=shared, quiet=True)
    monkeypatch.undo()
    assert saved(tmp_path)[0] == first + 1  # the batch that was being read counts for nothing

    newest = run / "checkpoints" / str(first + 1)
    for file in (newest / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-40])
    four_words = group.train(run, "tensor")
    with group.group(tmp_path / "four", 4, 1, four_words, RECORD=ids, SLOW_EVALUATION=2) as four:
        four.until((ids / "evaluating").exists)
        four.processes[2].send_signal(signal.SIGTERM)
        assert four.ended() == [exits.PREEMPTED] * 4, four.said()
        said = four.said()
    assert f"Continuing at step {first}," in said[0] and not any("step " in text for text in said[1:]), said
    assert f"Checkpoint {newest} is corrupt" in said[0] and newest.with_name(f"{first + 1}.corrupt").is_dir()
    assert json.loads((run / "run.json").read_text())["restarts"][-1]["devices"]["processes"] == 4
    evaluated = saved(tmp_path)[0]
    assert evaluated % 4 == 0 and (evaluated, "val") not in group.numbers(run), "it stopped in the evaluation"

    with pytest.MonkeyPatch.context() as patch:
        worker.record(ids, patch.setattr)
        experiment.train(settings(), run, shared=shared, quiet=True)
    assert_same_run(tmp_path, whole)


def test_killed_processes_lose_nothing_that_was_committed(tmp_path, whole):
    """SIGKILL to one process ends the other in bounded time; so does one during a save, which leaves what was there."""
    run, ids = tmp_path / "run", tmp_path / "ids"
    words = group.train(run, "fsdp")
    soon = {"TRANSFORMER_JAX_HEARTBEAT": 5}
    with group.group(tmp_path / "first", 2, 2, words, RECORD=ids, SLOW=0.1, **soon) as first:
        first.until(lambda: saved(tmp_path))
        first.processes[1].kill()
        codes = first.ended(timeout=100)
        assert codes[0] in group.LOST and codes[1] == -signal.SIGKILL, (codes, first.said())
    committed = saved(tmp_path)[0]

    with group.group(tmp_path / "second", 2, 2, words, RECORD=ids, SLOW_SAVES=1.5, **soon) as second:
        second.until(lambda: list((run / "checkpoints").glob("*.orbax-checkpoint-tmp")))
        second.processes[0].kill()
        codes = second.ended(timeout=100)
        assert codes[0] == -signal.SIGKILL and codes[1] in group.LOST, (codes, second.said())
    assert f"Continuing at step {committed}," in second.said()[0]
    assert list((run / "checkpoints").glob("*.orbax-checkpoint-tmp")) and saved(tmp_path)[0] == committed

    (run / "checkpoints" / "99").mkdir()  # what is not whole is passed over and left
    with group.group(tmp_path / "third", 2, 2, words, RECORD=ids) as third:
        assert third.ended() == [exits.OK] * 2, third.said()
    assert f"Continuing at step {committed}," in third.said()[0] and (run / "checkpoints" / "99").exists()
    assert_same_run(tmp_path, whole)
    assert (run / "report.html").exists()


def test_evaluations_of_two_processes_count_every_example_once(tmp_path, whole, shared):
    """Of every kind; the last batch of 180 examples has 36 of 72, none of them of process 1."""
    every = f"{group.EXPERIMENT}:fsdp,every"
    words = ["evaluate", "--config", every, "--checkpoint", str(whole / "run"), "--report", str(tmp_path / "two")]
    with group.group(tmp_path / "out", 2, 2, words) as both:
        expected = experiment.judge(experiment.resolve(config.load(every)), str(whole / "run"), shared=shared)
        assert both.ended() == [exits.OK] * 2, both.said()
    line = next(text for text in both.said()[0].splitlines() if text.startswith("{"))
    found = json.loads(line)
    assert "{" not in both.said()[1], "only one speaks"
    wanted = expected.with_intervals()
    assert found.keys() == wanted.keys() and found["val/examples"] == found["real/examples"] == 180
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for name, rows in expected.rows.items():
        with np.load(tmp_path / "two" / "predictions" / f"{name}.npz") as file:
            assert file.keys() == rows.keys()
            for key, column in rows.items():
                np.testing.assert_allclose(file[key], column, rtol=1e-5, atol=1e-5, err_msg=f"{name} {key}")


def test_nan_on_one_process_stops_both_and_says_where(tmp_path):
    run = tmp_path / "run"
    words = group.train(run, "fsdp")
    with group.group(tmp_path / "out", 2, 2, words, RECORD=tmp_path / "ids", POISON=48) as both:
        assert both.ended() == [exits.DIVERGED] * 2, both.said()
    report = json.loads((run / "diverged.json").read_text())
    assert (report["step"], report["first_example"]) == (4, 48)
    assert saved(tmp_path) == [2] and "step 4 gave loss nan" in both.said()[0]


def test_processes_that_were_given_other_settings_or_miss_data_say_which(tmp_path):
    """All end with 2, and none waits for the others on the devices: not even with another mesh."""
    other = {1: ["--config", f"{group.EXPERIMENT}:tensor", "--config.schedule.base=0.2"]}
    words = [group.train(tmp_path / name) for name in ("one", "two")]
    with (
        group.group(tmp_path / "mesh", 2, 2, words[0], own=other) as mesh,
        group.group(tmp_path / "data", 2, 2, words[1], MISSING=1) as data,
    ):
        assert mesh.ended(timeout=100) == [exits.BAD_INPUT] * 2, mesh.said()
        assert data.ended(timeout=100) == [exits.BAD_INPUT] * 2, data.said()
    said = mesh.said()[0]
    assert "rocess 1" in said and "schedule.base" in said and "0.2" in said and "parallel.mesh" in said, said
    assert "Process 1 of 2 cannot go on" in data.said()[0] and "folder:photos" in data.said()[0], data.said()
    assert not any((tmp_path / name / "checkpoints").exists() for name in ("one", "two"))


def test_a_process_that_never_comes_is_named(tmp_path):
    with group.group(tmp_path / "out", 1, 1, group.train(tmp_path / "run"), TRANSFORMER_JAX_WAIT=3) as one:
        assert one.ended(timeout=100) == [exits.PEER_LOST], one.said()
    assert "rocess 1" in one.said()[0], one.said()
