"""The loop: exact resume, stopping, waiting, and nothing hidden."""

import gc
import inspect
import json
import os
import resource
import signal
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer_jax import types
from transformer_jax.training import (
    checkpoint,
    compilation,
    failures,
    journal,
    loop,
    preemption,
    reporting,
)
from transformer_jax.training import state as states
from transformer_jax.training import step as steps

from . import small_run


class Recorder:
    """A writer that remembers, and can do something at a step."""

    def __init__(self, at=None, do=None):
        self.lines, self.texts, self._at, self._do = [], [], at, do

    def write(self, step, values):
        self.lines.append((step, dict(values)))
        if step == self._at and "train/loss" in values:
            self._do()

    def text(self, message):
        self.texts.append(message)

    def close(self):
        pass


class Quiet:
    """A feed of one batch, for the pace."""

    def __init__(self, position=0):
        self._batch = next(small_run.batches(0))

    def __next__(self):
        return dict(self._batch)

    def close(self):
        pass


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_run_interrupted_twice_equals_the_undisturbed_one_bit_for_bit(tmp_path):
    seen, seen_again = [], []
    whole = small_run.run(tmp_path / "whole", 12, feed=lambda p: small_run.batches(p, seen=seen))
    for at in (3, 8):  # stopped after steps that are saved for no other reason
        stop = preemption.Stop()
        with pytest.raises(preemption.Preempted):
            small_run.run(
                tmp_path / "parts",
                12,
                feed=lambda p: small_run.batches(p, seen=seen_again),
                stop=stop,
                extra_writers=[Recorder(at, stop.request)],
            )
    parts = small_run.run(tmp_path / "parts", 12, feed=lambda p: small_run.batches(p, seen=seen_again))
    same(parts, whole)
    assert small_run.numbers(tmp_path / "parts") == small_run.numbers(tmp_path / "whole")
    assert seen_again == seen


def test_total_steps_may_change_at_resume(tmp_path):
    small_run.run(tmp_path, 4)
    state = small_run.run(tmp_path, 6)
    assert int(state.step) == 6
    steps_logged = [line["step"] for line in small_run.numbers(tmp_path) if "train/loss" in line]
    assert steps_logged == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_not_run_again(tmp_path):
    first, evaluate = small_run.run(tmp_path, 4), small_run.Mean()
    before = (tmp_path / "metrics.jsonl").read_text()
    again = small_run.run(tmp_path, 4, evaluate=evaluate)
    same(again, first)
    assert evaluate.calls == [] and (tmp_path / "metrics.jsonl").read_text() == before


def test_evaluation_comes_before_the_save_so_that_the_best_is_known(tmp_path):
    small_run.run(tmp_path, 9, save_every=3, keep_best=("val/mean", "max"), keep_last=9)
    scores = {line["step"]: line["val/mean"] for line in small_run.numbers(tmp_path) if "val/mean" in line}
    checkpointer = checkpoint.Checkpointer(tmp_path / "checkpoints", keep_best=("val/mean", "max"))
    assert checkpointer.steps() == [9, 6, 3]
    assert checkpointer.best() == max(scores, key=scores.__getitem__)


def test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    def feed(position):
        for batch in small_run.batches(position):
            if 32 <= batch["_id"][0] < 40:  # the fifth batch
                batch["image"][2, 1] = np.nan
            yield batch

    with pytest.raises(failures.Diverged, match="step 5 gave loss nan.* on examples 32 to 39 .*set train.nonfinite"):
        small_run.run(tmp_path, 12, feed=feed, save_every=1, keep_last=3)
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps() == [4, 3, 2]
    report = json.loads((tmp_path / failures.REPORT).read_text())
    assert report["step"] == 5 and report["ids"] == [str(i) for i in range(32, 40)]
    flat, _ = checkpoint.load_params(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in flat.values())


def test_a_value_that_is_not_finite_may_be_skipped_and_is_counted(tmp_path):
    def feed(position):
        for batch in small_run.batches(position):
            if batch["_id"][0] == 32:
                batch["image"][2, 1] = np.inf
            yield batch

    recorder = Recorder()
    state = small_run.run(tmp_path, 8, feed=feed, nonfinite="skip", every=50, extra_writers=[recorder])
    assert int(state.step) == 8 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    skipped = {step: line["train/skipped"] for step, line in recorder.lines if "train/skipped" in line}
    assert skipped == {1: 0.0, 5: 1.0, 8: 0.0}
    assert any("Step 5 was skipped" in text for text in recorder.texts)


@pytest.mark.parametrize("phase", ["data", "evaluation", "step"])
def test_sigterm_saves_and_stops_wherever_the_run_is(tmp_path, phase):
    def terminate_soon():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    def feed(position):
        for batch in small_run.batches(position):
            if phase == "data" and batch["_id"][0] == 40:
                terminate_soon()
                threading.Event().wait()  # for ever
            yield batch

    def evaluate(params, *, stop):
        terminate_soon()
        time.sleep(1000)

    evaluate.name = "val"
    recorder = Recorder(5, lambda: os.kill(os.getpid(), signal.SIGTERM)) if phase == "step" else Recorder()
    options = {"evaluate": evaluate, "eval_every": 5} if phase == "evaluation" else {}
    with preemption.listen() as stop, pytest.raises(preemption.Preempted) as caught:
        small_run.run(tmp_path, 12, feed=feed, stop=stop, extra_writers=[recorder], **options)
    assert caught.value.code == 143
    # Metrics are read one step late: the signal at the line of step 5 comes after step 6 was dispatched.
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps()[0] == (6 if phase == "step" else 5)


def test_a_signal_before_the_first_step_saves_the_beginning(tmp_path):
    stop = preemption.Stop()
    stop.request()
    with pytest.raises(preemption.Preempted):
        small_run.run(tmp_path, 12, stop=stop)
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps() == [0]
    assert int(small_run.run(tmp_path, 3).step) == 3


def test_an_error_of_a_writer_ends_the_run_after_the_commit_of_what_was_saved(tmp_path):
    def fail():
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        small_run.run(tmp_path, 12, save_every=1, extra_writers=[Recorder(5, fail)])
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps()[0] == 4  # the line comes before the save


def test_a_failed_save_ends_the_run(tmp_path, monkeypatch):
    from orbax.checkpoint import AsyncCheckpointer

    def broken(*args):
        def commit():
            raise OSError("disk full")

        return commit

    monkeypatch.setattr(AsyncCheckpointer, "_make_on_commit_callback", broken)
    with pytest.raises(OSError, match="disk full"):
        small_run.run(tmp_path, 4)


def test_data_that_end_are_an_error(tmp_path):
    with pytest.raises(types.InputError, match="must not end before training does: there is none after example 16"):
        small_run.run(tmp_path, 12, feed=lambda p: (b for b, _ in zip(small_run.batches(p), range(2), strict=False)))


def test_a_second_trace_warns_with_the_difference(tmp_path):
    def feed(position):
        yield next(small_run.batches(position))
        yield next(small_run.batches(position + 8, batch_size=5))

    step = jax.jit(compilation.traced_once(steps.make_train_step(small_run.loss_fn, small_run.optimizer()), "The step"))
    with pytest.warns(UserWarning, match=r"The step is compiled again.*image: float32\[8,6\] -> float32\[5,6\]"):
        small_run.run(tmp_path, 2, step=step, feed=feed)


def test_a_step_is_traced_once_over_epochs_and_runs(tmp_path):
    step = small_run.train_step(nonfinite="stop")
    small_run.run(tmp_path / "one", 9, step=step)
    small_run.run(tmp_path / "two", 9, step=step)
    assert len(step.__wrapped__.signatures) == 1


def test_data_that_starve_the_device_are_measured_and_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_STARVED_SECONDS", 0.1)

    def slow(position):
        for batch in small_run.batches(position):
            time.sleep(0.05)
            yield batch

    recorder = Recorder()
    with pytest.warns(UserWarning, match="waits for data .*% of the time"):
        small_run.run(tmp_path, 12, feed=slow, every=6, extra_writers=[recorder])
    waits = [line["time/data_wait"] for step, line in recorder.lines if step == 12 and "time/data_wait" in line]
    assert waits[0] > 0.3


def test_the_loop_works_on_a_mesh_under_its_own_transfer_guard(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    state = jax.device_put(small_run.fresh(), everywhere)
    step = jax.jit(
        steps.make_train_step(small_run.loss_fn, small_run.optimizer(), average_decay=0.9),
        in_shardings=(everywhere, split, everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
    state = loop.fit(
        state,
        step,
        small_run.batches,
        put=lambda batch: {n: jax.make_array_from_process_local_data(split, x) for n, x in batch.items()},
        clock=states.Clock(),
        total_steps=4,
        batch_size=8,
        schedule=lambda count: 0.1,
        log=journal.Journal(reporting.Writers([]), total_steps=4, batch_size=8),
        stop=preemption.Stop(),
        checkpointer=checkpoint.Checkpointer(tmp_path, stacks=small_run.STACKS),
    )
    assert int(state.step) == 4 and state.params["head"]["bias"].sharding == everywhere
    assert not np.allclose(state.params["head"]["bias"], 0)


def test_a_transfer_nobody_asked_for_is_an_error(tmp_path):
    with pytest.raises(Exception, match="Disallowed host-to-device"):
        small_run.run(tmp_path, 2, step=lambda state, batch, rate: (state, {"loss": jnp.sin(np.float32(1))}))


def test_nothing_waits_for_the_step_just_dispatched(tmp_path):
    """Metrics of step n are read after step n + 1 is dispatched."""
    events = []

    class Metric:
        def __init__(self, step):
            self.step = step

        def is_ready(self):
            return True

        def __array__(self, dtype=None, copy=None):
            events.append(("read", self.step))
            return np.float32(0.5)

    def step(state, batch, rate):
        number = sum(kind == "dispatch" for kind, _ in events) + 1
        events.append(("dispatch", number))
        return state, {"loss": Metric(number)}

    small_run.run(tmp_path, 3, step=step, save_every=None, eval_every=None, evaluate=small_run.Mean())
    assert events[:5] == [("dispatch", 1), ("dispatch", 2), ("read", 1), ("dispatch", 3), ("read", 2)]


def quiet_run(steps_to_run, step):
    state = small_run.fresh()
    log = journal.Journal(reporting.Writers([]), total_steps=steps_to_run, batch_size=8)
    options = dict(clock=states.Clock(), total_steps=steps_to_run, batch_size=8, schedule=lambda count: 0.1)
    return loop.fit(state, step, Quiet, log=log, stop=preemption.Stop(), **options)


def test_memory_and_threads_do_not_grow():
    step = small_run.train_step(nonfinite="stop")
    quiet_run(100, step)
    gc.collect()
    threads, before = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    quiet_run(500, step)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB
    assert threading.active_count() <= threads


def test_threads_end_with_the_checkpointer(tmp_path):
    small_run.run(tmp_path / "warm", 4)
    before = threading.active_count()
    for trial in range(3):
        small_run.run(tmp_path / str(trial), 4)
    assert threading.active_count() <= before


def test_the_loop_can_be_read_aloud():
    assert len(inspect.getsource(loop.fit).strip().splitlines()) < 80


def test_the_compile_time_is_told_and_not_counted_as_pace(tmp_path):
    def slow_to_trace(params, batch, key):
        time.sleep(1.0)
        return small_run.loss_fn(params, batch, key)

    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = jax.jit(steps.make_train_step(slow_to_trace, small_run.optimizer()))
        small_run.run(tmp_path, 3, step=step, extra_writers=[recorder])
    first = recorder.lines[0][1]
    assert first["time/compile_s"] > 1.0 and first["time/step_ms"] < 1000
    assert any("was compiled in" in text for text in recorder.texts)
    assert "time/compile_s" not in recorder.lines[1][1]


def test_utilisation_is_a_number_only_when_the_peak_is_known():
    for peak, expected in ((1e6, True), (None, False)):
        recorder = Recorder()
        log = journal.Journal(recorder, total_steps=3, batch_size=8, every=1, flops_per_step=1e3, peak_flops=peak)
        for step in (1, 2):
            log.step(states.Clock(step, 8 * step), {"loss": jnp.float32(1)}, 0.1)
            time.sleep(0.01)
        log.flush()
        assert ("time/mfu" in recorder.lines[1][1]) is expected
        if expected:
            pace = recorder.lines[1][1]
            assert pace["time/mfu"] == pytest.approx(1e3 / (pace["time/step_ms"] * 1e-3) / 1e6, rel=1e-2)


@pytest.mark.parametrize("save_every", [3, 6])
def test_an_evaluation_that_was_interrupted_is_done_after_the_resume_and_its_score_kept(tmp_path, save_every):
    """The step is saved unevaluated when the signal comes, and can be the best all the same."""
    stop = preemption.Stop()

    class Interrupted(small_run.Mean):
        def __call__(self, params, *, stop):
            stop.request()
            raise AssertionError("the signal interrupts")

    best = dict(save_every=save_every, keep_best=("val/mean", "max"), keep_last=5)
    with pytest.raises(preemption.Preempted):
        small_run.run(tmp_path, 6, stop=stop, evaluate=Interrupted(), **best)
    checkpointer = checkpoint.Checkpointer(tmp_path / "checkpoints", keep_best=best["keep_best"])
    assert checkpointer.steps() == [3] and checkpointer.best() is None
    evaluate = small_run.Mean()
    small_run.run(tmp_path, 6, evaluate=evaluate, **best)
    small_run.run(tmp_path / "undisturbed", 6, **best)
    assert len(evaluate.calls) == 2
    for step in (3, 6):
        found = checkpoint.load_leaves(tmp_path / "checkpoints" / str(step))[1]
        assert found["evaluated"] and found["metrics"]["val/mean"] == evaluate.calls[step // 3 - 1]
        if step % save_every == 0:
            other = checkpoint.load_leaves(tmp_path / "undisturbed" / "checkpoints" / str(step))[1]
            assert small_run.timeless(found) == small_run.timeless(other)
    assert small_run.numbers(tmp_path) == small_run.numbers(tmp_path / "undisturbed")


def test_skipped_examples_are_a_metric_that_counts_on_after_a_resume(tmp_path):
    def feed(position):
        for batch in small_run.batches(position):
            yield {**batch, loop.SKIPPED: np.isin(batch["_id"], (8, 32)).astype(np.int32)}  # in steps 2 and 5

    small_run.run(tmp_path / "whole", 6, feed=feed)
    small_run.run(tmp_path / "parts", 4, feed=feed)
    small_run.run(tmp_path / "parts", 6, feed=feed)
    for folder in ("whole", "parts"):
        lines = [line for line in small_run.numbers(tmp_path / folder) if "train/loss" in line]
        counts = {line["step"]: line.get("data/skipped") for line in lines}
        assert counts == {1: None, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}


class Device:
    """A metric of a step that takes until a moment."""

    def __init__(self, until):
        self.until = until

    def is_ready(self):
        return time.perf_counter() >= self.until

    def block_until_ready(self):
        time.sleep(max(0.0, self.until - time.perf_counter()))

    def __array__(self, dtype=None, copy=None):
        self.block_until_ready()
        return np.float32(0.5)


def test_only_the_time_in_which_the_device_stood_idle_is_a_wait():
    """Steps of 100 ms, data of 105 ms read while they run: the device waits 5 % of the time."""
    recorder = Recorder()
    log = journal.Journal(recorder, total_steps=9, batch_size=8, every=8)
    clock = states.Clock()
    for _ in range(9):
        with log.waiting():
            time.sleep(0.105)
        clock.advance(8)
        log.step(clock, {"loss": Device(time.perf_counter() + 0.1)}, 0.1)
    log.flush()
    waits = [line["time/data_wait"] for step, line in recorder.lines if step == 8]
    assert 0.0 < waits[0] < 0.3
