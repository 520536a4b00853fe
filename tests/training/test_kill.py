"""Processes that are killed: nothing is lost but time."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from transformer_jax.training import checkpoint

from . import small_run

SCRIPT = pathlib.Path(__file__).with_name("script.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def started(workdir, total, cache, *phase):
    command = [sys.executable, str(SCRIPT), str(workdir), str(total), str(cache), *phase]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return output


def killed_during_a_save(workdir, process, rng):
    """SIGKILL while a step is being written, after one more has been committed."""
    saved = checkpoint.Checkpointer(workdir / "checkpoints").steps
    before = saved()
    while process.poll() is None:
        if saved() != before and any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")):
            time.sleep(rng.uniform(0, 0.01))
            process.kill()
        time.sleep(0.0005)
    process.wait()


def killed_at_random(workdir, process, rng):
    """SIGKILL at any moment after the run has begun to train, now and then before."""
    begun = len(lines(workdir))
    while process.poll() is None and len(lines(workdir)) == begun and rng.random() > 0.001:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    process.wait()


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def assert_same(workdir, other):
    one, meta_one = checkpoint.load_leaves(workdir)
    two, meta_two = checkpoint.load_leaves(other)
    assert one.keys() == two.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[path], err_msg=path)
    assert small_run.timeless(meta_one) == small_run.timeless(meta_two)
    assert small_run.numbers(workdir) == small_run.numbers(other)


def test_a_run_killed_during_saves_and_between_them_ends_as_the_undisturbed_one(tmp_path, cache):
    rng = random.Random(0)
    assert ", misses 0" not in finished(started(tmp_path / "whole", 40, cache))
    for kill in (killed_during_a_save, killed_at_random, killed_during_a_save):
        process = started(tmp_path / "killed", 40, cache)
        kill(tmp_path / "killed", process, rng)
        assert process.returncode == -signal.SIGKILL
        assert checkpoint.Checkpointer(tmp_path / "killed" / "checkpoints").steps()
    output = finished(started(tmp_path / "killed", 40, cache))
    assert ", misses 0" in output, "the second process finds what the first compiled"
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, cache):
    rng = random.Random(1)
    finished(started(tmp_path / "whole", 500, cache))
    kills = 0
    while kills < 20:
        process = started(tmp_path / "killed", 500, cache)
        rng.choice([killed_at_random, killed_at_random, killed_during_a_save])(tmp_path / "killed", process, rng)
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed often enough"
        kills += 1
    finished(started(tmp_path / "killed", 500, cache))
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_sigterm_in_every_phase_saves_and_exits_143(tmp_path, cache):
    phases = {"compile": 1, "train": None, "evaluation": 3, "data": 3}
    processes = {phase: started(tmp_path / phase, 1000, cache, phase) for phase in phases}
    for phase, step in phases.items():
        process = processes[phase]
        assert process.stdout.readline().strip() == phase
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=200)
        assert process.returncode == 143, phase
        saved = checkpoint.Checkpointer(tmp_path / phase / "checkpoints").steps()
        assert saved[0] == step if step is not None else saved[0] >= 3
        flat, meta = checkpoint.load_params(tmp_path / phase)
        assert meta["step"] == saved[0] and all(np.isfinite(leaf).all() for leaf in flat.values())
        assert not list((tmp_path / phase / "checkpoints").glob("*tmp"))
