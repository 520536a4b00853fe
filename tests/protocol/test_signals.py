"""The protocol verb, asked to stop."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from tests.protocol import shrunk
from transformer_jax import config, protocol

ROOT = pathlib.Path(__file__).parents[2]
SHRUNK = f"{shrunk.__file__}:{ROOT}/experiments/digits/protocol.py"


def test_a_stopped_protocol_exits_143_and_goes_on_where_it_was(tmp_path):
    raw = config.load(SHRUNK)
    (target,) = raw.targets
    longer = {f"targets.{target}.scratch.train.total": "1500"}
    command = [sys.executable, "-m", "transformer_jax", "protocol", "--config", SHRUNK, "--workdir", str(tmp_path)]
    command += [f"--config.{name}={value}" for name, value in longer.items()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ))
    begun, deadline = tmp_path / target / "scratch" / "tune" / "lr_0.001" / "metrics.jsonl", time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None and not (begun.exists() and begun.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output.decode()[-2000:]
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("outcome.json")}
    assert len(done) == 2 + 4  # pretraining, its judgement, two rates and two seeds of fine-tuning
    assert list((begun.parent / "checkpoints").glob("[0-9]*")), "what was learned is kept"
    results = protocol.run(protocol.resolve(raw, longer), tmp_path)
    assert not (begun.parent / "checkpoints").exists(), "and not longer than needed"
    assert set(results["targets"][target]) == {"finetune", "scratch", "probe"}
    assert {path: path.stat().st_mtime_ns for path in done} == done
