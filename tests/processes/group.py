"""Processes of one run on this machine, started as the tests say and never left behind."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = "tests/processes/digits.py"
PATIENCE = 250
"""Seconds: four processes may share one busy core, and each compiles."""
LOST = (134, -signal.SIGABRT)
"""How a process ends that has lost another: by itself, or from within jax.distributed."""


class Group:
    """`count` processes of `devices` CPU devices each, the output of each in a file."""

    def __init__(self, folder, count, devices, words, *, own=None, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        variables = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "TRANSFORMER_JAX_HEARTBEAT": "20",
            "TRANSFORMER_JAX_WAIT": "120",
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
            **{name: str(value) for name, value in environment.items()},
        }
        self.outputs = [folder / f"{index}.txt" for index in range(count)]
        self.processes = []
        for index, output in enumerate(self.outputs):
            command = [sys.executable, "-m", "tests.processes.worker", *words, *(own or {}).get(index, [])]
            command += ["--processes", f"{address},{max(count, 2)},{index}"]
            with output.open("w") as file:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT)
                )

    def ended(self, timeout=PATIENCE):
        """The exit codes, when all have ended."""
        deadline = time.monotonic() + timeout
        return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in self.processes]

    def said(self):
        """What each has written."""
        return [output.read_text() for output in self.outputs]

    def until(self, holds, timeout=PATIENCE):
        """Waits until `holds()`, while all processes live."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline and all(process.poll() is None for process in self.processes), (
                self.said()
            )
            time.sleep(0.005)

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextlib.contextmanager
def group(*args, **options):
    """A `Group` that is dead in the end, however the test ends."""
    started = Group(*args, **options)
    try:
        yield started
    finally:
        started.kill()


def train(workdir, parallel="data", **changes):
    """The words of a training run."""
    settings = [f"--config.{name.replace('__', '.')}={value}" for name, value in changes.items()]
    return ["train", "--config", f"{EXPERIMENT}:{parallel}", "--workdir", str(workdir), *settings]


def numbers(workdir):
    """`{(step, kind): metrics}` without what a clock measured. What came twice must be the same."""
    file, kept = workdir / "metrics.jsonl", {}
    for line in (
        [json.loads(text) for text in file.read_text().splitlines() if text.endswith("}")] if file.exists() else []
    ):
        kind = "val" if "val/top1" in line else "train"
        kept[line["step"], kind] = {
            name: value for name, value in line.items() if name not in ("step", "wall") and not name.startswith("time/")
        }
    return kept


def step(workdir):
    """The last step whose numbers are written."""
    return max((step for step, kind in numbers(workdir) if kind == "train"), default=0)
