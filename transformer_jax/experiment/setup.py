"""An experiment put together: data, program, schedule and evaluators, every fault shown before anything is compiled."""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.data import loading, ops, pipeline
from transformer_jax.evaluation import outputs, predictions
from transformer_jax.experiment import agreement, checks, evals, judges, sections, weights
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import shared as sharing
from transformer_jax.optim import optimizers, schedules
from transformer_jax.parallel import devices
from transformer_jax.training import evaluator, state


@dataclasses.dataclass(frozen=True)
class Setup:
    """An experiment put together: everything but the state."""

    settings: Mapping[str, Any]
    program: programs.Program
    data: pipeline.Train
    total_steps: int
    schedule: schedules.Schedule

    @property
    def batch_size(self) -> int:
        """Examples of one step, over all devices."""
        return self.settings["data"]["batch_size"]

    def steps(self, setting: str) -> int | None:
        """A setting that is a duration, such as `checkpoint.every`, in steps of this run."""
        duration: Any = functools.reduce(operator.getitem, setting.split("."), self.settings)
        sizes = {"batch_size": self.batch_size, "epoch_examples": self.data.num_examples}
        planned = schedules.steps(self.settings["train"]["total"], **sizes)  # the same wherever the run goes on from
        found = None if duration is None else schedules.steps(duration, total=planned, **sizes)
        if found == 0:
            raise types.InputError(
                f"config.{setting} must be at least one step: it is {duration!r}. Lengthen it, or leave it out."
            )
        return found


def prepare(settings: Mapping[str, Any], shared: sharing.Shared) -> Setup:
    """Open the data and build the program. Every fault of the configuration shows here, before anything is compiled."""
    devices.check_backend()
    sharing.preflight(sharing.missing(settings))
    checks.ranges(settings)
    data = shared.train_pipeline(settings)
    settings = _with_classes(settings, data.num_classes)
    section = settings["init_from"]
    settings = (
        sections.settled(settings) if section is None else agreement.begun(settings, shared.weights(section["path"]))
    )
    checks.best(settings["checkpoint"]["keep_best"], settings["evals"], data.num_classes)
    program = shared.program(settings, data.pixel_range)
    program.check(data, "data")
    batch_size = settings["data"]["batch_size"]
    program.strategy.check_batch(batch_size // settings["train"]["accumulate"])
    sizes = {"batch_size": batch_size, "epoch_examples": data.num_examples}
    total_steps = schedules.steps(settings["train"]["total"], **sizes)
    schedule = schedules.build(**settings["schedule"], total_steps=total_steps, **sizes)
    setup = Setup(settings, program, data, total_steps, schedule)
    for name in ("checkpoint.every", "train.log_every"):
        setup.steps(name)
    return setup


def continued(setup: Setup, clock: state.Clock) -> Setup:
    """The setup of a run that goes on from `clock`, where another batch size may have been before.

    A length in epochs or examples stays what it is, and so does the way of the learning rate along it; a length in
    steps counts steps.
    """
    ahead = clock.examples / setup.batch_size - clock.step
    length = setup.settings["train"]["total"]
    if not ahead or isinstance(length, int) or "step" in length:
        return setup
    total = max(clock.step, math.ceil(setup.total_steps - ahead))
    return dataclasses.replace(setup, total_steps=total, schedule=lambda step: setup.schedule(step + ahead))


def without_data(settings: Mapping[str, Any], shared: sharing.Shared) -> programs.Program:
    """The program alone, for fake batches: no data set is opened, so the model must name its classes (default 1000)."""
    devices.check_backend()
    checks.ranges(settings)
    model = dict(settings["model"], num_classes=settings["model"]["num_classes"] or 1000)
    plan = loading.plan(ops.parse(settings["data"]["preprocess"]))
    program = shared.program(sections.settled(dict(settings, model=model)), plan.pixel_range)
    program.strategy.check_batch(settings["data"]["batch_size"] // settings["train"]["accumulate"])
    return program


def _with_classes(settings: Mapping[str, Any], found: int) -> Mapping[str, Any]:
    """The settings with the number of classes of the data, where the model does not name its own."""
    asked = settings["model"]["num_classes"]
    if asked is not None and asked != found:
        raise types.InputError(
            f"The model must have a class for each label: config.model.num_classes={asked}, the data has {found}."
            " Set it to that number, or leave it out: it is taken from the data."
        )
    return dict(settings, model=dict(settings["model"], num_classes=found))


def summary(setup: Setup) -> str:
    """Parameters by treatment, and the size of the run."""
    program, count = setup.program, sum(np.prod(p.shape) for p in jax.tree.leaves(setup.program.model.abstract))
    table = optimizers.table(
        abstract_params=program.model.abstract, stacks=program.model.stacks, **setup.settings["optim"]
    )
    work = program.flops("train", setup.batch_size)
    return (
        f"{table}\n{count:,} parameters, {setup.data.num_examples:,} examples, {setup.total_steps:,} steps of"
        f" {setup.batch_size}, {work / 1e9:,.1f} GFLOP a step, on {jax.device_count()} x {jax.devices()[0].device_kind}"
    )


def judged(
    settings: Mapping[str, Any], path: str, shared: sharing.Shared
) -> tuple[programs.Program, tuple[str, ...] | None]:
    """The program of an experiment that is only evaluated, so that its training data need not be at hand. Conventions
    of the model that it leaves out are those of the weights at `path`.

    Its classes, whose names come too, are those that an evaluator of the whole head reads, or where evaluators read a
    subset of them only, those the weights name. Where none looks at the head there are no names.
    """
    devices.check_backend()
    if not settings["evals"]:
        raise types.InputError("There must be something to evaluate: config.evals is empty. Name an evaluator.")
    checks.evals(settings["evals"])
    sharing.preflight(sharing.missing(settings, train=False) + weights.missing(path, "--checkpoint"))
    settings = agreement.judged(settings, shared.weights(path), path)
    plan = loading.plan(ops.parse(settings["data"]["preprocess"]))
    headed = [section for kind in evals.HEADED for section in settings["evals"].values() if section["kind"] == kind]
    whole = [section for section in headed if not section.get("subset")]
    if whole:
        names = shared.source(whole[0], whole[0]["split"]).class_names
    else:
        names = weights.class_names(shared.weights(path)) if headed else None
    classes = len(names) if names else settings["model"]["num_classes"] or 1
    return shared.program(_with_classes(settings, classes), plan.pixel_range), tuple(names) if names else None


def evaluations(setup: Setup, shared: sharing.Shared, folder: Path | None = None) -> list[evaluator.Scheduled]:
    """The evaluators of an experiment and when they run. With a Polyak average, it is the average that is evaluated.

    Those with `predictions` write them into `folder`, the run directory.
    """
    average = setup.settings["train"]["average"] is not None
    best, saved = setup.settings["checkpoint"]["keep_best"], setup.steps("checkpoint.every")
    judge = None if best is None else checks.evaluator_of(best)
    sections = setup.settings["evals"]
    made = judges.build(
        sections, setup.program, shared, class_names=setup.data.class_names, keep=_writers(sections, folder)
    )
    return [
        evaluator.Scheduled(
            item,
            every=setup.steps(f"evals.{item.name}.every"),
            saves=saved if item.name == judge else None,
            average=average,
        )
        for item in made
    ]


def _writers(sections: Mapping[str, Mapping[str, Any]], folder: Path | None) -> dict[str, outputs.Keep]:
    """What writes the predictions of the evaluators that are asked for them."""
    if folder is None:
        return {}
    return {
        name: functools.partial(predictions.write, folder, name)
        for name, section in sections.items()
        if section["predictions"]
    }
