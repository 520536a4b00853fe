"""Failures in words, and compilation made visible."""

import contextlib
import errno
import json
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from transformer_jax import types
from transformer_jax.parallel import detection
from transformer_jax.training import checkpoint, compilation, evaluator, exits, failures, preemption

from . import small_run

OOM = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 21474836480 bytes.\nmore"


def test_out_of_memory_says_what_to_change():
    with pytest.raises(types.InputError) as caught, failures.memory_hints(batch_size=1024, accumulate=2, devices=4):
        raise jax.errors.JaxRuntimeError(OOM)
    text = str(caught.value)
    assert "128 examples at a time on each of 4" in text
    assert "accumulate=4" in text and "remat=full" in text and "'fsdp' axis" in text and "21474836480" in text


def test_out_of_memory_does_not_advise_what_is_done_already():
    text = failures.out_of_memory(OOM, batch_size=3, accumulate=1, remat="full", devices=1)
    assert "remat=full" not in text and "accumulate=2" not in text and "fsdp" not in text and "data.batch_size" in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("something else"),
        jax.errors.JaxRuntimeError("INTERNAL: something else"),
        ValueError("RESOURCE_EXHAUSTED: Error reading local file: Too many open files [os_error_code='24']"),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, failures.memory_hints(batch_size=8):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("ids", [None, [7, 3]])
def test_a_batch_that_diverged_is_described_by_its_positions(tmp_path, ids):
    error = failures.diverged(failures.BatchRecord(4, 48, 16, ids), {"loss": float("nan")}, tmp_path)
    report = json.loads((tmp_path / failures.REPORT).read_text())
    assert (report["step"], report["first_example"], report["last_example"]) == (4, 48, 63)
    assert report.get("ids") == (None if ids is None else ["7", "3"]) and ("ids" in report) == (ids is not None)
    assert "on examples 48 to 63 of the data order" in str(error)


def test_a_retrace_names_the_leaves_that_changed():
    step = jax.jit(compilation.traced_once(lambda batch: batch["image"] * 2, "The step"))
    step({"image": jnp.zeros((4, 3))})
    step({"image": jnp.ones((4, 3))})
    with pytest.warns(UserWarning, match=r"The step is compiled again.*0/0/image: float32\[4,3\] -> bfloat16\[4,3\]"):
        step({"image": jnp.ones((4, 3), jnp.bfloat16)})


def test_a_watch_times_only_what_was_compiled():
    double, watch = jax.jit(lambda x: x * 2), compilation.Watch()
    x = jnp.zeros(3)
    with watch.watching():
        double(x)
    assert watch.seconds is not None and watch.seconds > 0
    with watch.watching():
        double(x)
    assert watch.seconds is None


@pytest.mark.parametrize(
    ("scheduled", "due"),
    [({"every": 3}, {3, 6, 8}), ({}, {8}), ({"every": 3, "saves": 4}, {3, 4, 6, 8})],
)
def test_evaluators_run_when_due_and_at_the_end(scheduled, due):
    item = evaluator.Scheduled(small_run.Mean(), **scheduled)
    assert {step for step in range(9) if item.due(step, 8)} == due


@contextlib.contextmanager
def no_file_over(size):
    """Every file that grows beyond `size` bytes cannot be written: as a disk that is full, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_during_a_save_in_the_background_is_named_and_older_checkpoints_stand(tmp_path):
    with contextlib.ExitStack() as later:
        saved = checkpoint.Checkpointer(tmp_path / "checkpoints").steps

        def feed(position):
            for batch in small_run.batches(position):
                if batch["_id"][0] == 8 * 5:  # step 4 has been saved, step 8 will be
                    deadline = time.monotonic() + 60
                    while not saved() and time.monotonic() < deadline:
                        time.sleep(0.01)
                    later.enter_context(no_file_over(64))
                yield batch

        with pytest.raises(failures.DiskFull, match=r"the disk of .* has .* GiB left .*Make room") as caught:
            with failures.disk_hints(tmp_path):
                small_run.run(tmp_path, 16, feed=feed, every=100, eval_every=None)
    assert str(tmp_path) in str(caught.value) and failures.exit_code(caught.value) == exits.FAILED
    assert checkpoint.Checkpointer(tmp_path / "checkpoints").steps() == [4]
    state = small_run.run(tmp_path, 8, every=100)  # room was made: it goes on
    assert int(state.step) == 8


def test_a_disk_that_is_full_when_a_number_is_written_is_named_too(tmp_path):
    with pytest.raises(failures.DiskFull, match="the disk of"), failures.disk_hints(tmp_path), no_file_over(64):
        small_run.run(tmp_path, 3, save_every=None)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("... No space left on device ...")]
)
def test_a_full_disk_is_known_by_its_number_or_its_words(tmp_path, error):
    with pytest.raises(failures.DiskFull), failures.disk_hints(tmp_path):
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("a save failed") from cause


def test_other_errors_of_files_pass(tmp_path):
    with pytest.raises(PermissionError), failures.disk_hints(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


class JaxRuntimeError(RuntimeError):
    """What jaxlib raises; a name is all that is known of it."""


GLOO = "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"
LATE = (
    "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out with key: cpu:gloo/0,1/2"
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SystemExit(0), exits.OK),
        (SystemExit(), exits.OK),
        (SystemExit("text"), exits.FAILED),
        (preemption.Preempted(), exits.PREEMPTED),
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (types.InputError("rule"), exits.BAD_INPUT),
        (failures.Diverged("nan"), exits.DIVERGED),
        (detection.PeerLost("process 1"), exits.PEER_LOST),
        (JaxRuntimeError(GLOO), exits.PEER_LOST),
        (JaxRuntimeError(LATE), exits.PEER_LOST),
        (JaxRuntimeError("INTERNAL: something else"), exits.FAILED),
        (ValueError("Connection closed by peer"), exits.FAILED),
        (ZeroDivisionError(), exits.FAILED),
    ],
)
def test_every_error_has_its_exit_code(error, code):
    assert failures.exit_code(error) == code


def test_a_supervisor_starts_again_what_can_end_otherwise_and_nothing_else():
    result = subprocess.run([sys.executable, "-m", "transformer_jax.training.exits"], capture_output=True, text=True)
    assert result.stdout.split() == ["75", "134", "137", "143"]
    assert exits.RESTARTABLE.isdisjoint({exits.OK, exits.FAILED, exits.BAD_INPUT, exits.DIVERGED, exits.INTERRUPTED})
