"""What the loop tells about training: the metrics of the step before, the pace, the waiting, the compiling."""

import collections
import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.training import compilation, failures, reporting, state, step
from transformer_jax.training import goodput as goodputs

_SKIPPED = "data/skipped"
_STARVED = 0.2  # share of the time the device stood idle for want of data that is worth a warning
_STARVED_SECONDS = 2.0


@runtime_checkable
class Progress(Protocol):
    """Something that shows how far the run is, more often than lines are written."""

    def advance(self, step: int) -> None: ...


class Journal:
    """Holds the metrics of the step just dispatched, and reads those of the step before, which are ready.

    A line is written every `every` steps, for the first step and for the last. Keys under `time/` are about the
    machine; all others are the same in any run of the same configuration and seed.
    """

    def __init__(
        self,
        writer: reporting.Writer,
        *,
        total_steps: int,
        batch_size: int,
        every: int = 50,
        directory: str | os.PathLike[str] | None = None,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
        progress: Progress | None = None,
        goodput: goodputs.Goodput | None = None,
        skipped: Callable[[int], int] = lambda own: own,
    ) -> None:
        self._writer, self._progress, self._directory = writer, progress, directory
        self._total, self._batch, self._every = total_steps, batch_size, max(1, every)
        self._utilisation = flops_per_step / peak_flops if flops_per_step and peak_flops else None
        self._held: tuple[failures.BatchRecord, types.Metrics, dict[str, Any]] | None = None
        self._compile = compilation.Watch()
        self._compile_seconds = 0.0
        self._warned = False
        self.skipped = skipped
        """The bad examples of all processes, from those of this one. All of them ask together."""
        self._watcher: threading.Thread | None = None
        self.goodput = goodput or goodputs.Goodput()
        self.turns = 0
        self._recent: collections.deque[float] = collections.deque(maxlen=64)
        self._turned: float | None = None
        self._restart()

    @property
    def phase(self) -> str:
        """What the run is doing, a name of `goodput.PHASES`."""
        return self.goodput.phase

    def typical(self) -> tuple[int, float]:
        """How many recent turns of the loop are known, and the median of their seconds. From any thread."""
        recent = sorted(self._recent.copy())
        return len(recent), recent[len(recent) // 2] if recent else 0.0

    @contextlib.contextmanager
    def training(self) -> Generator[None, None, None]:
        """Around the loop: what comes before is start-up, what comes after waits for the last save."""
        self.goodput.enter("step")
        try:
            yield
        finally:
            self.goodput.enter("save")

    def _restart(self) -> None:
        self._since, self._steps, self._waited, self._excluded = time.perf_counter(), 0, 0.0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Around the wait for the next batch. Time in which the device still had work is not counted."""
        work = None if self._held is None else next(iter(self._held[1].values()))
        idle_since = [time.perf_counter()]
        if work is not None and not work.is_ready():
            idle_since.clear()
            self._watcher = threading.Thread(target=_note_end, args=(work, idle_since), daemon=True)
            self._watcher.start()
        yield
        if idle_since:
            idle = time.perf_counter() - idle_since[0]
            self._waited += idle
            self.goodput.shift("data_wait", idle)

    @contextlib.contextmanager
    def dispatching(self) -> Generator[None, None, None]:
        """Around the call of the step. Says so when it had to be compiled."""
        with self._compile.watching():
            yield
        if self._compile.seconds is not None:
            self._compile_seconds += self._compile.seconds
            self._excluded += self._compile.seconds
            self.goodput.shift("compile", self._compile.seconds)
            self._turned = None
            cache = f" (compile cache: {self._compile.cache})" if self._compile.cache else ""
            self._writer.text(f"The training step was compiled in {self._compile.seconds:.1f} s{cache}.")

    @contextlib.contextmanager
    def paused(self, phase: str) -> Generator[None, None, None]:
        """Around an `"evaluation"` or a `"save"`: they are not part of the pace of training."""
        self.flush()
        start = time.perf_counter()
        with self.goodput.during(phase):
            yield
        self._excluded += time.perf_counter() - start
        self._turned = None

    def step(
        self, clock: state.Clock, metrics: types.Metrics, learning_rate: float | np.floating, ids: Any = None
    ) -> None:
        """Takes the metrics of the step just dispatched; reads and reports those of the one before.

        Raises `Diverged` when that one was not finite and its policy is to stop.
        """
        self.flush()
        now = time.perf_counter()
        if self._turned is not None:
            self._recent.append(now - self._turned)
        self._turned = now
        self.turns += 1
        first = clock.examples - self._batch
        known = {"learning_rate": reporting.number(learning_rate), _SKIPPED: clock.skipped}
        self._held = (failures.BatchRecord(clock.step, first, self._batch, ids), metrics, known)
        if self._progress is not None:
            self._progress.advance(clock.step)

    def flush(self) -> None:
        """Reads and reports the metrics that are held. Waits for the device."""
        if self._held is None:
            return
        (record, metrics, known), self._held = self._held, None
        due = record.step % self._every == 0 or record.step in (1, self._total)
        flags = metrics if due else {name: metrics[name] for name in step.FLAGS.values() if name in metrics}
        values = jax.device_get(flags)
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        self._steps += 1
        stopped, skipped = (bool(values.get(step.FLAGS[policy], 0)) for policy in ("stop", "skip"))
        if stopped:
            raise failures.diverged(record, jax.device_get(metrics), self._directory)
        if skipped:
            self._writer.text(f"Step {record.step} was skipped: its loss, gradient or update was not finite.")
        if due or skipped:
            values = values if due else jax.device_get(metrics)
            self._write(record.step, values, known)
        self.goodput.leave(record.step)

    def evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Reports the results of the evaluators."""
        if scores:
            self._writer.write(step, {**scores, **self._share()})

    def text(self, message: str) -> None:
        self._writer.text(message)

    def _write(self, number: int, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {f"train/{name}": value for name, value in values.items() if name != step.STOPPED}
        bad = self.skipped(known[_SKIPPED])
        counted = {name: value for name, value in known.items() if name != _SKIPPED} | ({_SKIPPED: bad} if bad else {})
        self._writer.write(number, {**line, **counted, **self._pace(number), **self._share()})
        self._restart()

    def _share(self) -> dict[str, float]:
        return {"time/goodput": reporting.rounded(self.goodput.share())}

    def _pace(self, number: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._since - self._excluded
        pace: dict[str, float] = {}
        if self._compile_seconds:
            pace["time/compile_s"], self._compile_seconds = self._compile_seconds, 0.0
        if self._steps and seconds > 0:
            pace["time/step_ms"] = 1e3 * seconds / self._steps
            pace["time/images_per_s"] = self._steps * self._batch / seconds
            pace["time/data_wait"] = min(1.0, self._waited / seconds)
            pace["time/eta_s"] = (self._total - number) * seconds / self._steps
            if self._utilisation is not None:
                pace["time/mfu"] = self._utilisation * self._steps / seconds
            self._warn_starved(pace["time/data_wait"], seconds)
        return {name: reporting.rounded(value) for name, value in pace.items()}

    def _warn_starved(self, share: float, seconds: float) -> None:
        if self._warned or share < _STARVED or seconds < _STARVED_SECONDS or self._steps < 2:
            return
        self._warned = True
        message = (
            f"The device waits for data {share:.0%} of the time: a batch takes longer to prepare than a step to run."
            " Give the pipeline more threads or workers, prepare smaller images, or use a faster decoder."
        )
        self._writer.text(f"Warning: {message}")
        warnings.warn(message, stacklevel=2)


def _note_end(work: Any, when: list[float]) -> None:
    """Writes down when the device has finished `work`, successfully or not."""
    with contextlib.suppress(Exception):
        jax.block_until_ready(work)
    when.append(time.perf_counter())
