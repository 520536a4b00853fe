"""What a run writes about itself: its configuration, where it ran, its numbers."""

import contextlib
import functools
import math
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import jax

from transformer_jax import config, types
from transformer_jax.experiment import lock
from transformer_jax.experiment import setup as setups
from transformer_jax.metrics import flops
from transformer_jax.parallel import multihost, together
from transformer_jax.training import failures, goodput, journal, provenance, reporting, storage

CONFIG = "config.json"
TOKEN = ".processes"
"""What the first process writes at the start, for the others to see."""


def introduce(folder: Path, setup: setups.Setup, say: Callable[[str], None]) -> None:
    """Write `config.json` and `run.json`, print the configuration and what it makes of the parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config.text(setup.settings) + "\n")
    provenance.write(folder, seed=setup.settings["seed"])
    say(config.text(setup.settings))
    say(setups.summary(setup))


@contextlib.contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """Within this context no other run trains in the folder, which is made if it is not there.

    All processes of a run share it: the first one holds the lock, and the others must see what it writes.
    """
    with contextlib.ExitStack() as held:
        together.by_first(lambda: lock.hold(folder, held))
        if multihost.count() > 1:
            _require_shared(folder)
        yield


def _require_shared(folder: Path) -> None:
    """`InputError` on every process unless each of them sees a file that the first one writes into the folder."""
    token = together.by_first(lambda: _written(folder, secrets.token_hex(16)))
    deadline = time.monotonic() + storage.SEEN_WITHIN
    while not (seen := _holds(folder, token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    answers = multihost.gather([seen, socket.gethostname(), str(folder)])
    if multihost.main():
        (folder / TOKEN).unlink(missing_ok=True)
    blind = [f"process {index} on {host} ({place})" for index, (saw, host, place) in enumerate(answers) if not saw]
    if blind:
        raise types.InputError(
            f"All processes of a run must see the same run directory: what process 0 on {answers[0][1]} writes in"
            f" {answers[0][2]} is not seen by {', '.join(blind)}. Give every process the same --workdir, on a file"
            " system that all machines mount."
        )


def _written(folder: Path, token: str) -> str:
    (folder / TOKEN).write_text(token)
    return token


def _holds(folder: Path, token: str) -> bool:
    try:
        return (folder / TOKEN).read_text() == token
    except OSError:
        return False


@contextlib.contextmanager
def checkpoints(directory: Path, *, keep: bool) -> Generator[None, None, None]:
    """Around a run. Without `keep` its checkpoints are deleted when it ends, well or by diverging, not when it is
    interrupted. Renamed first: a half-deleted folder must not look like a run to continue."""
    doomed = directory.with_name(f"{directory.name}.deleted")

    def delete() -> None:
        if not keep and multihost.main():
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
    `metrics.jsonl` only; others also TensorBoard events, and lines or a progress bar for people. Of several processes
    the first one writes; the others remember.
    """

    def __init__(self, folder: Path, kept: int | None, total_steps: int, *, quiet: bool):
        self.folder = folder
        self._last = _Last()
        self._bar = None
        writers: list[reporting.Writer] = [self._last]
        if multihost.main():
            until = -1 if kept is None else kept
            writers.append(reporting.JsonLines(folder / reporting.METRICS, keep_until=until))
            if not quiet:
                self._bar = reporting.Bar(total_steps, start=kept or 0) if sys.stdout.isatty() else None
                writers.append(reporting.TensorBoard(folder / "tensorboard", keep_until=until))
                writers.append(self._bar or reporting.Console())
        self._writers = reporting.Writers(writers)
        # A run that was finished before has its numbers in the file.
        self._last.values.update(together.by_first(lambda: _last_values(folder / reporting.METRICS)))

    def journal(self, setup: setups.Setup, spent: goodput.Goodput) -> journal.Journal:
        """The journal of the loop, writing here."""
        skipping = multihost.count() > 1 and setup.settings["data"]["on_bad_image"] == "skip"
        kinds = [device.device_kind for device in jax.devices()]
        peaks = [flops.peak(kind) for kind in kinds]
        known = None if None in peaks else math.fsum(peak for peak in peaks if peak)
        return journal.Journal(
            self._writers,
            total_steps=setup.total_steps,
            batch_size=setup.batch_size,
            every=setup.steps("train.log_every") or 1,
            directory=self.folder if multihost.main() else None,
            flops_per_step=setup.program.flops("train", setup.batch_size) if known else None,
            peak_flops=known,
            progress=self._bar,
            goodput=spent,
            skipped=functools.partial(_everywhere, setup.data.process[0]) if skipping else lambda own: own,
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


def _last_values(file: Path) -> dict[str, Any]:
    """The last value of every metric in a metrics file: little, whatever the length of the run."""
    found: dict[str, Any] = {}
    for line in reporting.read(file):
        found.update({name: value for name, value in line.items() if name not in ("step", "wall")})
    return found


def _everywhere(reader: int, own: int) -> int:
    """The sum over all processes of what each has counted, `own` here; those that read the same counted the same.

    A run that is continued counts on from what the first process knows.
    """
    counted: dict[int, int] = {}
    for index, count in multihost.gather([reader, own]):
        counted[index] = max(counted.get(index, 0), count)
    return sum(counted.values())


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
