"""The protocol verb, asked to stop."""

import os
import pathlib
import subprocess
import sys

from tests.protocol import shrunk
from transformer_jax import config, protocol

ROOT = pathlib.Path(__file__).parents[2]
SHRUNK = f"{shrunk.__file__}:{ROOT}/experiments/digits/protocol.py"


def test_a_stopped_protocol_exits_143_and_goes_on_where_it_was(tmp_path):
    raw = config.load(SHRUNK)
    (target,) = raw.targets
    longer = {f"targets.{target}.scratch.train.total": "300"}
    begun = tmp_path / target / "scratch" / "tune" / "lr_0.001" / "metrics.jsonl"
    command = [sys.executable, "-m", "tests.protocol.stopped", str(begun)]
    command += ["protocol", "--config", SHRUNK, "--workdir", str(tmp_path)]
    command += [f"--config.{name}={value}" for name, value in longer.items()]
    devices = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}  # as here: what one compiles the other finds
    process = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=ROOT, env=devices)
    assert process.returncode == 143, process.stderr[-2000:]
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("outcome.json")}
    assert len(done) == 2 + 4  # pretraining, its judgement, two rates and two seeds of fine-tuning
    assert list((begun.parent / "checkpoints").glob("[0-9]*")), "what was learned is kept"
    results = protocol.run(protocol.resolve(raw, longer), tmp_path)
    assert not (begun.parent / "checkpoints").exists(), "and not longer than needed"
    assert set(results["targets"][target]) == {"finetune", "scratch", "probe"}
    assert {path: path.stat().st_mtime_ns for path in done} == done
