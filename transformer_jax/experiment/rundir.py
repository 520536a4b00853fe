"""What a run writes about itself: its configuration, where it ran, its numbers."""

import contextlib
import fcntl
import math
import shutil
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import jax

from transformer_jax import config, types
from transformer_jax.experiment import setup as setups
from transformer_jax.metrics import flops
from transformer_jax.training import failures, journal, provenance, reporting

CONFIG = "config.json"
LOCK = ".lock"


def introduce(folder: Path, setup: setups.Setup, say: Callable[[str], None]) -> None:
    """Write `config.json` and `run.json`, print the configuration and what it makes of the parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config.text(setup.settings) + "\n")
    provenance.write(folder, seed=setup.settings["seed"])
    say(config.text(setup.settings))
    say(setups.summary(setup))


@contextlib.contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """Within this context no other process of this machine trains in the folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise types.InputError(f"--workdir must be a directory one can write to: {folder}: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise types.InputError(
                f"One process trains in a run directory: another one is at work in {folder}. Wait for it, or choose"
                " another --workdir."
            ) from None
        yield


@contextlib.contextmanager
def checkpoints(directory: Path, *, keep: bool) -> Generator[None, None, None]:
    """Around a run. Without `keep` its checkpoints are deleted when it ends, well or by diverging, not when it is
    interrupted. Renamed first: a half-deleted folder must not look like a run to continue."""
    doomed = directory.with_name(f"{directory.name}.deleted")

    def delete() -> None:
        if not keep and jax.process_index() == 0:
            shutil.rmtree(doomed, ignore_errors=True)
            if directory.exists():
                directory.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    try:
        yield
    except failures.Diverged:
        delete()
        raise
    delete()


class Numbers:
    """The writers of a run, and the last value of every metric they were given.

    `kept` is the step of its own that the run continues from: metric lines up to it stay. A quiet run writes
    `metrics.jsonl` only; others also TensorBoard events, and lines or a progress bar for people.
    """

    def __init__(self, folder: Path, kept: int | None, total_steps: int, *, quiet: bool):
        self.folder = folder
        self.quiet = quiet
        self._last = _Last()
        until = -1 if kept is None else kept
        self._bar = reporting.Bar(total_steps, start=kept or 0) if sys.stdout.isatty() and not quiet else None
        writers: list[reporting.Writer] = [
            reporting.JsonLines(folder / reporting.METRICS, keep_until=until),
            self._last,
        ]
        if not quiet:
            writers.append(reporting.TensorBoard(folder / "tensorboard", keep_until=until))
            writers.append(self._bar or reporting.Console())
        self._writers = reporting.Writers(writers)
        for line in reporting.read(folder / reporting.METRICS):  # a run that was finished before has its numbers here
            self._last.values.update({name: value for name, value in line.items() if name not in ("step", "wall")})

    def journal(self, setup: setups.Setup) -> journal.Journal:
        """The journal of the loop, writing here."""
        kinds = [device.device_kind for device in jax.devices()]
        peaks = [flops.peak(kind) for kind in kinds]
        known = None if None in peaks else math.fsum(peak for peak in peaks if peak)
        return journal.Journal(
            self._writers,
            total_steps=setup.total_steps,
            batch_size=setup.batch_size,
            every=setup.steps("train.log_every") or 1,
            directory=self.folder,
            flops_per_step=setup.program.flops("train", setup.batch_size) if known else None,
            peak_flops=known,
            progress=self._bar,
        )

    @property
    def last(self) -> dict[str, float]:
        """The last value of every metric."""
        return self._last.values

    def text(self, message: str) -> None:
        """A message for people."""
        self._writers.text(message)

    def close(self) -> None:
        """End every writer."""
        self._writers.close()


class _Last:
    """A writer that remembers."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.values.update(values)

    def text(self, message: str) -> None:
        pass

    def close(self) -> None:
        pass
