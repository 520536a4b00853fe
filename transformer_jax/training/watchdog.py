"""A run that stands still writes down where it stands, and ends, so that a supervisor can start it again.

The watchdog looks, from a thread, at what the run counts anyway: turns of the loop, batches of an evaluation, programs
compiled. Nothing is done for it in a step.
"""

import contextlib
import faulthandler
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from transformer_jax.parallel import multihost
from transformer_jax.training import compilation, exits

FLOOR = 120.0
"""Seconds that any step may take: a file system that pauses is no hang."""
PATIENCE = 3600.0
"""Seconds a compilation, a save, or one batch of an evaluation may take, and the first steps, whose length is not
known yet."""
_ANSWER = 10.0  # seconds a write or a device has to answer
_LEAVE = 40.0  # seconds the processes of a run have to end together
_KNOWN = 3  # steps before the median of them means something


@runtime_checkable
class Log(Protocol):
    """What is watched of `journal.Journal`."""

    @property
    def phase(self) -> str: ...
    @property
    def turns(self) -> int: ...
    def typical(self) -> tuple[int, float]: ...


@runtime_checkable
class Polled(Protocol):
    """What is watched of `preemption.Stop`."""

    polls: int
    hung: Callable[[str], None]

    def tell(self, message: str) -> None: ...


class Watchdog:
    """Ends the process with `exits.HUNG` when a step takes more than `factor` times the median one, and `floor`.

    Stacks of all threads and the memory of the devices are then in `directory`/hang-PROCESS.txt and on standard error,
    of every process of the run. `factor=None` never ends anything. Time in which the process itself was stopped
    (Ctrl-Z, a laptop that sleeps) does not count, nor does a debugger's prompt.
    """

    def __init__(
        self,
        factor: float | None,
        directory: str | os.PathLike[str],
        log: Log,
        stop: Polled,
        *,
        process: int = 0,
        floor: float = FLOOR,
        patience: float = PATIENCE,
        interval: float = 1.0,
        end: Callable[[int], object] = lambda code: _leave(code),
    ) -> None:
        self._factor, self._log, self._stop = factor, log, stop
        self._file = pathlib.Path(directory) / f"hang-{process}.txt"
        self._floor, self._patience, self._interval = floor, patience, interval
        self._end, self._process = end, process
        self._seen: tuple[str, int, int, int] | None = None
        self._still = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._factor is not None:
            self._stop.hung = self._bark
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._stop.hung = lambda said: None
        if self._thread.is_alive():
            self._thread.join(self._interval)

    def bound(self) -> float:
        """Seconds without progress that are too many where the run is now."""
        known, median = self._log.typical()
        if self._log.phase != "step" or known < _KNOWN or compilation.tally().compiling:
            return self._patience
        return max(self._floor, (self._factor or 0.0) * median)

    def tick(self, seconds: float) -> None:
        """`seconds` more have passed."""
        seen = (self._log.phase, self._log.turns, self._stop.polls, compilation.tally().compiles)
        if seen != self._seen:
            self._seen, self._still = seen, 0.0
            return
        self._still += seconds
        if self._still > self.bound() and not _debugged():
            message = self._diagnosis()
            _bounded(lambda: self._stop.tell(message))
            self._bark(message)

    def _watch(self) -> None:
        while not self._closed.wait(self._interval):
            self.tick(self._interval)

    def _diagnosis(self) -> str:
        known, median = self._log.typical()
        return (
            f"Process {self._process} on {socket.gethostname()} has made no progress for {self._still:.0f} s in phase"
            f" {self._log.phase!r} after {self._log.turns} steps (median {median:.3g} s of {known});"
            f" {self.bound():.0f} s are the most (train.watchdog)."
        )

    def _bark(self, message: str) -> None:
        dump(self._file, message)
        self._end(exits.HUNG)


def dump(file: pathlib.Path, what: str) -> None:
    """Writes `what`, the stacks of all threads, and the memory of the devices to `file` and to standard error.

    Whatever might hang itself comes after all else and is not waited for long: the file system of the run, a device.
    """
    threads = ", ".join(f"{thread.ident:#018x} {thread.name}" for thread in threading.enumerate())
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}\nThreads: {threads}\n"

    def to_file() -> None:
        with open(file, "w") as stream:
            stream.write(head)
            stream.flush()
            faulthandler.dump_traceback(stream, all_threads=True)

    def to_stderr() -> None:
        os.write(2, f"\n{head}".encode())
        faulthandler.dump_traceback(2, all_threads=True)
        os.write(2, f"The same is in {file}.\n".encode())

    def memory_to_both() -> None:
        text = _memory()
        with open(file, "a") as stream:
            stream.write(text)
        os.write(2, text.encode())

    for write in (to_stderr, to_file, memory_to_both):
        _bounded(write)


def _memory() -> str:
    import jax

    lines = [f"{device}: {device.memory_stats() or 'no memory statistics'}" for device in jax.local_devices()]
    return "\n".join(["Memory of the local devices:", *lines, ""])


def _leave(code: int) -> None:
    """Ends the process, with the others where they come."""
    _bounded(lambda: multihost.end(code), _LEAVE)
    os._exit(code)


def _bounded(work: Callable[[], object], seconds: float | None = None) -> None:
    """Does `work` in a thread, which is left behind when it takes longer. Its errors are none of ours."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(_ANSWER if seconds is None else seconds)


def _debugged() -> bool:
    """Whether some thread stands at the prompt of a debugger."""
    for frame in sys._current_frames().values():
        at = frame
        while at is not None:
            if at.f_globals.get("__name__") in ("bdb", "pdb", "pydevd"):
                return True
            at = at.f_back
    return False
