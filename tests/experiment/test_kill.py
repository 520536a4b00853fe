"""Twenty SIGKILLs of a run started from the command line: the same arrays and the same numbers in the end."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.experiment import small
from transformer_jax.training import checkpoint

STEPS, KILLS = 1500, 20
SETTINGS = {"train.total": STEPS, "train.log_every": 10, "checkpoint.every": 10, "checkpoint.keep_last": 2}


def started(workdir):
    command = [sys.executable, "-m", "transformer_jax", "train", "--config", small.__file__, "--workdir", str(workdir)]
    command += [f"--config.{name}={value}" for name, value in {**SETTINGS, "evals.val.every": 50}.items()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def numbers(workdir):
    """The last line of every step: a run killed between an evaluation and its save writes that line once more."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    kept = {}
    for line in lines:
        kind = "val" if "val/top1" in line else "train"
        values = {name: value for name, value in line.items() if name != "wall" and not name.startswith("time/")}
        assert kept.setdefault((line["step"], kind), values) == values
    return kept


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_of_a_run_of_the_command_line(tmp_path):
    rng = random.Random(0)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        process, checkpoints = started(killed), killed / "checkpoints"
        before = checkpoint.Checkpointer(checkpoints).steps()
        while process.poll() is None and checkpoint.Checkpointer(checkpoints).steps() == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"the run ended before it was killed often enough: {said[-2000:]}"
    for folder in (killed, tmp_path / "whole"):
        process = started(folder)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    (one, first), (two, second) = (checkpoint.load_leaves(folder) for folder in (killed, tmp_path / "whole"))
    assert one.keys() == two.keys() and first["step"] == second["step"] == STEPS
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name], err_msg=name)
    assert first["digest"] == second["digest"] and first["metrics"] == second["metrics"]
    assert numbers(killed) == numbers(tmp_path / "whole")
