"""Training: from a resolved experiment to a run directory."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from transformer_jax import config, types
from transformer_jax.evaluation import chance, classification
from transformer_jax.experiment import changes as differences
from transformer_jax.experiment import peers, rundir, sections, weights
from transformer_jax.experiment import setup as setups
from transformer_jax.experiment import shared as sharing
from transformer_jax.parallel import connecting, multihost, together
from transformer_jax.training import (
    checkpoint,
    compilation,
    evaluator,
    failures,
    goodput,
    journal,
    loop,
    preemption,
    report,
    start,
    state,
    watchdog,
)


def train(
    settings: Mapping[str, Any] | ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    shared: sharing.Shared | None = None,
    quiet: bool = False,
    keep: bool = True,
) -> dict[str, float]:
    """Train to the end of the run, or on from its last checkpoint; returns the last value of every metric.

    Called by every process of a run, on the same settings and directory; the first one writes and speaks.
    `settings` is a resolved experiment, or a config as an experiment file returns it. `quiet` runs are parts of
    something larger: no console, TensorBoard or report. Without `keep` no checkpoint is left of a run that has ended.
    """
    if isinstance(settings, ml_collections.ConfigDict):
        settings = sections.resolve(settings)
    shared = shared or sharing.Shared()
    folder = Path(workdir).expanduser().absolute()
    compilation.enable_cache(os.environ.get("TRANSFORMER_JAX_CACHE", "~/.cache/transformer_jax"))
    say = _silent if quiet or not multihost.main() else print
    spent = goodput.Goodput(folder / goodput.FILE if multihost.main() else None, age=goodput.process_age())
    with preemption.listen() as stop, rundir.alone(folder), failures.disk_hints(folder):
        peers.require(settings)  # before what is in them is opened: each would fail in its own way
        setup, evaluations = together.by_all(lambda: _prepared(settings, shared, folder))
        checkpointer = _checkpointer(folder, setup)
        peers.require(setup.settings, setup.data, checkpointer.agreed())
        progress = _Progress(spent)
        with _hints(setup), _watched(setup.settings, folder, progress, stop):
            connecting.connect(setup.program.mesh)
            begun = _begin(setup, checkpointer, shared, evaluations, stop, say)
            spent.continues(begun.clock.goodput, begun.clock.step, begun.origin != "resume")
            setup = setups.continued(setup, begun.clock)
            kept = begun.clock.step if begun.origin == "own" else None
            numbers = rundir.Numbers(folder, kept, setup.total_steps, quiet=quiet)
            progress.log = numbers.journal(setup, spent)
            if not quiet and multihost.main():
                rundir.introduce(folder, setup, print)
            if begun.clock.step >= setup.total_steps:
                numbers.text(f"Nothing left to do: step {begun.clock.step} of {setup.total_steps}.")
            with rundir.checkpoints(checkpointer.directory, keep=keep):
                _fit(setup, begun, evaluations, checkpointer, numbers, progress.log, stop, save_last=keep)
        if keep:  # what was not kept is lost when its numbers are
            stop.check()

    def finished() -> dict[str, float]:
        if not quiet:
            report.run(folder, title=setup.settings["name"])
        return numbers.last

    return together.by_first(finished)


def _prepared(
    settings: Mapping[str, Any], shared: sharing.Shared, folder: Path
) -> tuple[setups.Setup, Sequence[evaluator.Scheduled]]:
    setup = setups.prepare(settings, shared)
    return setup, setups.evaluations(setup, shared, folder)


def _fit(
    setup: setups.Setup,
    begun: start.Start,
    evaluations: Sequence[evaluator.Scheduled],
    checkpointer: checkpoint.Checkpointer,
    numbers: rundir.Numbers,
    log: journal.Journal,
    stop: preemption.Stop,
    *,
    save_last: bool,
) -> None:
    """The loop, and the end of everything that writes."""
    with contextlib.ExitStack() as closed:  # in the reverse order, each whatever became of the others
        closed.callback(numbers.close)
        closed.callback(lambda: numbers.text(log.goodput.text()))
        closed.callback(lambda: log.goodput.leave(begun.clock.step, now=True))
        closed.callback(checkpointer.close)
        loop.fit(
            begun.state,
            setup.program.step,
            setup.data.batches,
            clock=begun.clock,
            total_steps=setup.total_steps,
            batch_size=setup.batch_size,
            schedule=setup.schedule,
            log=log,
            stop=stop,
            put=setup.program.strategy.put,
            evaluations=evaluations,
            checkpointer=checkpointer,
            save_every=setup.steps("checkpoint.every"),
            save_last=save_last,
        )
        if bad := log.skipped(begun.clock.skipped):
            numbers.text(f"{bad} bad images were skipped (data.on_bad_image='skip').")


@dataclasses.dataclass
class _Progress:
    """What the watchdog looks at: the phase from the start on, and the journal as soon as there is one."""

    spent: goodput.Goodput
    log: journal.Journal | None = None

    @property
    def phase(self) -> str:
        return self.spent.phase

    @property
    def turns(self) -> int:
        return 0 if self.log is None else self.log.turns

    def typical(self) -> tuple[int, float]:
        return (0, 0.0) if self.log is None else self.log.typical()


def _watched(
    settings: Mapping[str, Any], folder: Path, progress: _Progress, stop: preemption.Stop
) -> watchdog.Watchdog:
    return watchdog.Watchdog(settings["train"]["watchdog"], folder, progress, stop, process=multihost.index())


def _hints(setup: setups.Setup) -> contextlib.AbstractContextManager[None]:
    return failures.memory_hints(
        batch_size=setup.batch_size,
        accumulate=setup.settings["train"]["accumulate"],
        remat=setup.settings["model"].get("remat"),
        devices=jax.device_count(),
    )


def _silent(message: str) -> None:
    pass


def _checkpointer(folder: Path, setup: setups.Setup) -> checkpoint.Checkpointer:
    """The checkpoints of this run, each with the resolved configuration, the class names and the data it was fed."""
    section = setup.settings["checkpoint"]
    meta = {
        "config": config.plain(setup.settings),
        "class_names": list(setup.data.class_names),
        "fingerprint": setup.data.fingerprint,
    }
    return checkpoint.Checkpointer(
        folder / "checkpoints",
        stacks=setup.program.model.stacks,
        meta=meta,
        keep_last=section["keep_last"],
        keep_best=section["keep_best"],
    )


def _begin(
    setup: setups.Setup,
    checkpointer: checkpoint.Checkpointer,
    shared: sharing.Shared,
    evaluations: Sequence[evaluator.Scheduled],
    stop: preemption.Stop,
    say: Callable[[str], None],
) -> start.Start:
    """The state the run starts from (`start.begin`), weights of `init_from` fitted to the model."""
    program, section = setup.program, setup.settings["init_from"]
    key = jax.random.key(setup.settings["seed"])

    def with_weights(fresh: state.TrainState) -> state.TrainState:
        found = weights.fit(
            shared.weights(section["path"]),
            program,
            program.neutral(fresh.params),
            head=section["head"],
            position=section["position"],
            patch=section["patch"],
            classes=setup.data.class_names,
        )
        say(found.report.text())
        begun = program.init_with(jax.random.split(key)[1], program.place(found.params))
        if any(name.startswith("head/") for name in found.report.loaded):
            with stop.interruptible():  # nothing is lost yet
                _check_classifier(setup, begun, evaluations, stop, say)
        return begun

    return start.begin(
        checkpointer,
        program.abstract,
        fresh=lambda: program.init(key),
        resume=setup.settings["resume"],
        init_from=None if section is None else with_weights,
        source="" if section is None else section["path"],
        accept=functools.partial(_check_changes, setup, say),
        say=say,
    )


def _check_classifier(
    setup: setups.Setup,
    begun: state.TrainState,
    evaluations: Sequence[evaluator.Scheduled],
    stop: preemption.Stop,
    say: Callable[[str], None],
) -> None:
    """Warn when a classifier that came with its head is no better than chance before fine-tuning."""
    for item in evaluations:
        if isinstance(item.evaluator, classification.Classification):
            scores = evaluator.judged(item.evaluator, begun.params, stop)
            say(f"{item.evaluator.name} before fine-tuning: top1 {scores['top1']:.4f}")
            examples, classes = int(scores["examples"]), item.evaluator.classes or setup.data.num_classes
            chance.warn(item.evaluator.name, scores["top1"], examples=examples, classes=classes)


def _check_changes(setup: setups.Setup, say: Callable[[str], None], saved: Mapping[str, Any]) -> None:
    """Say what changed since the checkpoint that is continued; `InputError` for a change that was not allowed."""
    changes = differences.between(saved["config"], setup.settings)
    if saved["fingerprint"] != setup.data.fingerprint and not any(key.startswith("data.") for key in changes):
        changes["data"] = (saved["fingerprint"], setup.data.fingerprint)
    for key, (old, new) in changes.items():
        say(f"changed since the checkpoint: {key}: {old!r} -> {new!r}")
    allowed = tuple(setup.settings["resume_allow"])
    refused = [key for key in changes if not differences.harmless(key, setup.settings) and not _allowed(key, allowed)]
    if refused:
        listing = ", ".join(f"{key} ({changes[key][0]!r} -> {changes[key][1]!r})" for key in refused)
        raise types.InputError(
            f"A continued run keeps the settings that shape it: {listing} changed."
            f' Change back, use another --workdir, or mean it: --config.resume_allow="{tuple(refused)}".'
        )


def _allowed(key: str, allowed: tuple[str, ...]) -> bool:
    """Whether `resume_allow` names the setting or a section it lies in."""
    return any(key == name or key.startswith(f"{name}.") for name in allowed)
