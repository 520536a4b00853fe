"""Which checkpoints of a run are kept: the last few, and the best."""

import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from transformer_jax import types
from transformer_jax.training import storage

MODES: dict[str, Callable[..., Any]] = {"max": max, "min": min}


class Kept:
    """The last `keep_last` of a folder, and the best by `keep_best=("val/top1", "max")`."""

    def __init__(self, directory: pathlib.Path, keep_last: int, keep_best: tuple[str, str] | None) -> None:
        if keep_last < 1:
            raise types.InputError(
                f"keep_last must be at least 1: it is {keep_last}. A run continues from the last one."
            )
        if keep_best is not None and keep_best[1] not in MODES:
            raise types.InputError(f"keep_best is (metric, 'max' or 'min'): it is {keep_best!r}.")
        self._directory, self._last, self._best = directory, keep_last, keep_best
        self._scores: dict[int, float] = {}

    def best(self) -> int | None:
        """The best committed step; the newest of equals. None when none was evaluated."""
        if self._best is None:
            return None
        scores = {step: self._score(step, self._best[0]) for step in storage.steps(self._directory)}
        known = {step: score for step, score in scores.items() if score == score}
        if not known:
            return None
        wanted = MODES[self._best[1]](known.values())
        return next(step for step, score in known.items() if score == wanted)

    def forget(self, step: int) -> None:
        """The score of this step has changed, or will not be asked for again."""
        self._scores.pop(step, None)

    def prune(self) -> None:
        """Delete the others. Renamed first: a half-deleted folder must not look like a checkpoint."""
        for step in self._others(list(storage.steps(self._directory))):
            self.forget(step)
            (self._directory / str(step)).rename(self._directory / f"{step}.deleted")
        for doomed in self._directory.glob("*.deleted"):
            shutil.rmtree(doomed, ignore_errors=True)

    def _others(self, steps: Sequence[int]) -> list[int]:
        kept = {*steps[: self._last], self.best()}
        return [step for step in steps if step not in kept]

    def _score(self, step: int, metric: str) -> float:
        if step not in self._scores:
            try:
                metrics = storage.read_meta(self._directory / str(step))["metrics"]
            except storage.Corrupt:
                metrics = {}
            self._scores[step] = metrics.get(metric, float("nan"))
        return self._scores[step]
