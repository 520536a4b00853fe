"""The checkpoints of a run: saved in the background, verified when read, the last few and the best kept."""

import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.parallel import multihost, together
from transformer_jax.training import integrity, layout, retention, state, storage


class Checkpointer:
    """Reads and writes the checkpoints of one run.

    `stacks` names the stacked modules of the model and their depth; `meta` is what every checkpoint of the run carries
    (config, classes, fingerprint). The last `keep_last` are kept, and the best by `keep_best=("val/top1", "max")`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        stacks: Mapping[str, int] | None = None,
        meta: Mapping[str, Any] | None = None,
        keep_last: int = 2,
        keep_best: tuple[str, str] | None = None,
        spread: bool | None = None,
    ) -> None:
        self.directory = storage.absolute(directory)
        self._stacks, self._meta = dict(stacks or {}), dict(meta or {})
        self._kept = retention.Kept(self.directory, keep_last, keep_best)
        self._spread = multihost.count() > 1 if spread is None else spread
        self._writer: storage.Writer | None = None
        self._started: int | None = None
        self._own: set[int] = set()

    def steps(self) -> list[int]:
        """The steps saved and committed, newest first."""
        return list(storage.steps(self.directory))

    def agreed(self) -> list[int]:
        """The steps as the first process lists them, or what this one sees when it does not come to see the newest."""
        steps = together.by_first(self.steps)
        return steps if not steps or storage.seen(self.directory / str(steps[0])) else self.steps()

    def corrupt(self) -> list[str]:
        """The names of steps that were set aside because they were not what was saved."""
        return sorted(path.name for path in self.directory.glob("*.corrupt*"))

    def has(self, step: int) -> bool:
        """Whether the run saved this step, or goes on from it: the same on all processes, whatever files they see."""
        return step in self._own

    def best(self) -> int | None:
        """The best committed step by `keep_best`; the newest of equals. None when none was evaluated."""
        return self._kept.best()

    def save(self, current: state.TrainState, clock: state.Clock, scores: Mapping[str, float] | None = None) -> None:
        """Starts to save. Returns when the state may be overwritten; `wait` returns when it is committed.

        Raises the error of an earlier save that failed in the background.
        """
        self.wait()
        target = self.directory / str(clock.step)
        together.by_first(lambda: self._make_room(target))
        flat = state.flatten(current)
        with jax.transfer_guard("allow"):
            leaves = layout.to_neutral(flat, self._stacks, spread=self._spread)
            meta = {
                **self._meta,
                "format_version": storage.FORMAT_VERSION,
                "step": clock.step,
                "examples": clock.examples,
                "evaluated": clock.evaluated,
                "skipped": clock.skipped,
                **({"goodput": clock.goodput} if clock.goodput else {}),
                "metrics": dict(scores or {}),
                "stacks": self._stacks,
                "leaves": layout.describe(leaves),
                "digest": integrity.digests(flat, self._stacks),
            }
        if self._writer is None:
            self._writer = storage.Writer()
        self._started = clock.step
        self._own.add(clock.step)
        self._writer.start(target, leaves, meta)

    def _make_room(self, target: pathlib.Path) -> None:
        if storage.is_complete(target):
            raise types.InputError(
                f"A step is saved once: {target.name} is already in {self.directory}. Use an empty run directory."
            )
        storage.set_aside(target, "stray")

    def record(self, clock: state.Clock, scores: Mapping[str, float]) -> None:
        """Adds its scores to a step that was saved before it was evaluated, as one is that a signal has interrupted."""
        self.wait()
        directory = self.directory / str(clock.step)
        if not multihost.main() or storage.read_meta(directory)["evaluated"]:
            return
        storage.amend_meta(directory, {"evaluated": True, "metrics": dict(scores)})
        self._kept.forget(clock.step)
        self._kept.prune()

    def restore(
        self,
        abstract: state.TrainState,
        *,
        source: str | os.PathLike[str] | None = None,
        accept: Callable[[dict[str, Any]], None] = lambda meta: None,
    ) -> tuple[state.TrainState, state.Clock, dict[str, Any]]:
        """The newest checkpoint that proves to be what was saved, placed as `abstract` asks (shape, dtype, sharding).

        A corrupt one is named, renamed `N.corrupt`, and the next older one taken. Raises `InputError` when none is
        left, or when the checkpoint is of another model or optimizer. `source` is the path of another run to read
        instead (or one step of it), where nothing is renamed. `accept` sees the meta data first, and may raise.
        All processes take the same one: what one of them cannot read is corrupt for all.
        """
        target = state.flatten(abstract)
        problems = []
        for directory in self._candidates(source):
            try:
                flat, meta = self._read(directory, target, accept)
            except storage.Corrupt as error:
                problems.append(f"step {directory.name}: {error}")
                self._warn(directory, error, rename=source is None)
                continue
            skipped = meta.get("skipped", 0) if multihost.main() else 0  # all that were are counted by one from here on
            counts = meta["step"], meta["examples"], meta["evaluated"], skipped, meta.get("goodput", {})
            clock = state.Clock(*counts)
            if source is None:
                self._own.add(clock.step)
            return state.unflatten(layout.place(flat, target), abstract), clock, meta
        raise types.InputError(
            f"A run continues from a good checkpoint: {source or self.directory} has none"
            + (f" left ({'; '.join(problems)})." if problems else ".")
            + " Point resume at another run directory, or start again in an empty one."
        )

    def wait(self) -> None:
        """Returns when everything is committed and what need not be kept is deleted. Raises if a save has failed."""
        if self._writer is not None and self._started is not None:
            started, self._started = self._started, None
            self._writer.wait()
            if multihost.main() and not storage.is_complete(self.directory / str(started)):
                raise OSError(
                    f"Step {started} was saved without an error, but {self.directory / str(started)} is not whole."
                )
            if multihost.main():
                self._kept.prune()

    def close(self) -> None:
        """Waits, then ends the background threads."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _candidates(self, source: str | os.PathLike[str] | None) -> list[pathlib.Path]:
        """Those that could be restored, newest first, as the first process sees them."""

        def names() -> list[str]:
            found = storage.steps(self.directory).values() if source is None else storage.find(source)
            return [str(path) for path in found]

        return [pathlib.Path(name) for name in together.by_first(names)]

    def _warn(self, directory: pathlib.Path, error: storage.Corrupt, *, rename: bool) -> None:
        aside = together.by_first(lambda: str(storage.set_aside(directory, "corrupt")) if rename else "")
        if multihost.main():
            said = f" It is now {aside}." if rename else ""
            warnings.warn(f"Checkpoint {directory} is corrupt: {error}.{said}", stacklevel=3)

    def _read(
        self, directory: pathlib.Path, target: types.FlatTree, accept: Callable[[dict[str, Any]], None]
    ) -> tuple[types.FlatTree, dict[str, Any]]:
        """The leaves of a checkpoint and its meta data, on every process; `Corrupt` on every process too."""
        meta: dict[str, Any] = {}
        neutral: types.FlatTree = {}
        fault = None
        try:
            meta = storage.patiently(lambda: storage.read_meta(directory))
            accept(meta)
            layout.require_same(meta["leaves"], layout.pieces(target, self._stacks), where=str(directory))
            target = layout.as_stored(target, meta["leaves"], self._stacks)
            wanted = layout.pieces(target, self._stacks)
            if not self._spread:
                wanted = {path: np.empty((), leaf.dtype) for path, leaf in wanted.items()}
            neutral = storage.patiently(lambda: storage.read_leaves(directory, wanted))
        except storage.Corrupt as error:
            fault = str(error)
        for index, found in enumerate(multihost.gather(fault)):  # what follows is done by all of them, or by none
            if found is not None:
                raise storage.Corrupt(found if index == 0 else f"{found}, says process {index}")
        flat = layout.from_neutral(neutral, self._stacks, target)
        storage.require_digests(integrity.digests(flat, self._stacks), meta["digest"])
        return flat, meta


def load_params(path: str | os.PathLike[str], *, average: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The parameters of a checkpoint as `{"blocks/0/mlp/up/kernel": array}`, with its meta data.

    `path` is a run directory, its `checkpoints` folder (the newest good step is taken), or one step. Works on any
    machine, whatever the run was trained on. `average=True` takes the Polyak average.
    """
    root = "average" if average else "params"
    leaves, meta = load_leaves(path, keep=lambda name: name.startswith(f"{root}/"))
    if not leaves:
        raise types.InputError(
            f"The checkpoint must have {root!r} to load: {path} has none. Load without average=True."
        )
    return {name.removeprefix(f"{root}/"): leaf for name, leaf in leaves.items()}, meta


def save_params(directory: str | os.PathLike[str], params: types.FlatTree, meta: Mapping[str, Any]) -> None:
    """Parameters by neutral path as one checkpoint that is no step of a run, complete or not at all.

    `load_params` reads it back with `meta` (`config`, `class_names`, `step`, ...). Raises `InputError` when something
    is there already.
    """
    place = storage.absolute(directory)
    if place.exists():
        raise types.InputError(f"Nothing is overwritten: {place} exists. Choose another name, or remove it first.")
    leaves = {f"params/{path}": np.asarray(leaf) for path, leaf in params.items()}
    counts = {"step": 0, "examples": 0, "evaluated": False, "skipped": 0, "metrics": {}}
    about = {"stacks": {}, "leaves": layout.describe(leaves), "digest": integrity.digests(leaves, {})}
    writer = storage.Writer()
    try:
        writer.start(place, leaves, {**counts, **meta, **about, "format_version": storage.FORMAT_VERSION})
        writer.wait()
    finally:
        writer.close()


def load_leaves(
    path: str | os.PathLike[str], *, keep: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The leaves of a checkpoint whose path `keep` accepts, verified, with the meta data.

    A corrupt step is passed over with a warning if there is an older one.
    """
    problems = []
    for directory in storage.find(path):
        try:
            meta = storage.read_meta(directory)
            names = {name: np.empty(()) for name in meta["leaves"] if keep(name)}
            leaves = storage.read_leaves(directory, names)
            storage.require_digests(integrity.digests(leaves, {}), {name: meta["digest"][name] for name in names})
            return leaves, meta
        except storage.Corrupt as error:
            problems.append(f"{directory}: {error}")
            warnings.warn(f"Checkpoint {directory} is corrupt: {error}. Looking for an older one.", stacklevel=3)
    raise types.InputError(f"A checkpoint must be what was saved: {'; '.join(problems)}. Take another copy of it.")
