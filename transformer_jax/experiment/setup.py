"""An experiment put together: data, program, schedule and evaluators, every fault shown before anything is compiled."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.data import loading, ops, pipeline
from transformer_jax.evaluation import classification, fewshot
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import shared as sharing
from transformer_jax.optim import optimizers, schedules
from transformer_jax.parallel import devices
from transformer_jax.training import evaluator


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

    def steps(self, duration: schedules.Duration | None) -> int | None:
        """A duration of this run in steps."""
        sizes = {"batch_size": self.batch_size, "epoch_examples": self.data.num_examples}
        found = None if duration is None else schedules.steps(duration, total=self.total_steps, **sizes)
        if found == 0:
            raise types.InputError(f"What is done every so often needs at least one step between: every={duration!r}.")
        return found


def prepare(settings: Mapping[str, Any], shared: sharing.Shared) -> Setup:
    """Open the data and build the program. Every fault of the configuration shows here, before anything is compiled."""
    devices.check_backend()
    sharing.preflight(sharing.missing(settings))
    _check_ranges(settings)
    data = shared.train_pipeline(settings)
    settings = _with_classes(settings, data.num_classes)
    program = shared.program(settings, data.pixel_range)
    program.check(data, "data")
    batch_size = settings["data"]["batch_size"]
    program.jit.check_batch(batch_size // settings["train"]["accumulate"])
    sizes = {"batch_size": batch_size, "epoch_examples": data.num_examples}
    total_steps = schedules.steps(settings["train"]["total"], **sizes)
    schedule = schedules.build(**settings["schedule"], total_steps=total_steps, **sizes)
    setup = Setup(settings, program, data, total_steps, schedule)
    _check_best(setup)
    return setup


def _check_best(setup: Setup) -> None:
    """`InputError` when checkpoints are saved that nothing has judged: the best would be the best of the others."""
    best, saved = setup.settings["checkpoint"]["keep_best"], setup.steps(setup.settings["checkpoint"]["every"])
    if best is None or saved is None:
        return
    name = best[0].partition("/")[0]
    evaluated = setup.steps(setup.settings["evals"][name]["every"])
    if evaluated is None or saved % evaluated:
        raise types.InputError(
            f"To keep the best checkpoint, each must be evaluated: checkpoint.every is {saved} steps,"
            f" evals.{name}.every {'the end only' if evaluated is None else f'{evaluated} steps'}."
            " Set checkpoint.every to a multiple of it."
        )


def _check_ranges(settings: Mapping[str, Any]) -> None:
    """`InputError` for a number that means nothing, before it is found in a result."""
    train, best = settings["train"], settings["checkpoint"]["keep_best"]
    smoothing, average, evals = train["label_smoothing"], train["average"], settings["evals"]
    known = best is None or best[0].partition("/")[0] in evals
    rules = {
        "seed": (settings["seed"], 0 <= settings["seed"] < 2**32, "from 0 to 2**32 - 1"),
        "train.accumulate": (train["accumulate"], train["accumulate"] >= 1, "at least 1"),
        "train.mixup": (train["mixup"], train["mixup"] >= 0, "at least 0, which turns it off"),
        "train.label_smoothing": (smoothing, 0 <= smoothing < 1, "at least 0 and below 1"),
        "train.average": (average, average is None or 0 < average < 1, "between 0 and 1"),
        "checkpoint.keep_best": (best, known, f"a metric of an evaluator ({', '.join(evals)}) and 'max' or 'min'"),
    }
    for name, (value, good, rule) in rules.items():
        if not good:
            raise types.InputError(f"config.{name} must be {rule}: it is {value!r}.")


def without_data(settings: Mapping[str, Any], shared: sharing.Shared) -> programs.Program:
    """The program alone, for fake batches: no data set is opened, so the model must name its classes (default 1000)."""
    devices.check_backend()
    model = dict(settings["model"], num_classes=settings["model"]["num_classes"] or 1000)
    plan = loading.plan(ops.parse(settings["data"]["preprocess"]))
    program = shared.program(dict(settings, model=model), plan.pixel_range)
    program.jit.check_batch(settings["data"]["batch_size"] // settings["train"]["accumulate"])
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


def judged(settings: Mapping[str, Any], shared: sharing.Shared) -> tuple[programs.Program, tuple[str, ...]]:
    """The program of an experiment and the names of its classes, where the training data need not be at hand: the
    classes are those of the first evaluator's data."""
    devices.check_backend()
    if not settings["evals"]:
        raise types.InputError("There must be something to evaluate: config.evals is empty.")
    sharing.preflight(sharing.missing(settings, train=False))
    first = next(iter(settings["evals"].values()))
    source = shared.source(first, first.get("split") or first["test_split"])
    plan = loading.plan(ops.parse(settings["data"]["preprocess"]))
    return shared.program(_with_classes(settings, source.num_classes), plan.pixel_range), source.class_names


def evaluations(setup: Setup, shared: sharing.Shared) -> list[evaluator.Scheduled]:
    """The evaluators of an experiment and when they run. With a Polyak average, it is the average that is evaluated."""
    average = setup.settings["train"]["average"] is not None
    every = {name: setup.steps(section["every"]) for name, section in setup.settings["evals"].items()}
    made = evaluators(setup.settings["evals"], setup.program, shared)
    return [evaluator.Scheduled(item, every=every[item.name], average=average) for item in made]


def evaluators(
    sections: Mapping[str, Mapping[str, Any]], program: programs.Program, shared: sharing.Shared
) -> list[evaluator.Evaluator]:
    """The evaluators of `config.evals`, their data opened."""
    return [_EVALUATORS[section["kind"]](name, section, program, shared) for name, section in sections.items()]


def _classification(
    name: str, section: Mapping[str, Any], program: programs.Program, shared: sharing.Shared
) -> evaluator.Evaluator:
    data = shared.eval_pipeline(name, section, section["split"], program)
    loss = program.settings["train"]["loss"]
    return classification.Classification(name, data, program.predict, program.jit.put, loss=loss)


def _fewshot(
    name: str, section: Mapping[str, Any], program: programs.Program, shared: sharing.Shared
) -> evaluator.Evaluator:
    train, test = (shared.eval_pipeline(name, section, section[f"{part}_split"], program) for part in ("train", "test"))
    options = {key: section[key] for key in ("shots", "seeds", "l2")}
    return fewshot.FewShot(name, train, test, program.features, program.jit.put, **options)


_EVALUATORS: dict[str, Callable[..., evaluator.Evaluator]] = {"classification": _classification, "fewshot": _fewshot}
