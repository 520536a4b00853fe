"""The evaluators of an experiment, put together: their data opened, fitted to the program."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from transformer_jax import paths, types
from transformer_jax.data import pipeline
from transformer_jax.evaluation import classification, fewshot, knn, linear, multilabel, outputs
from transformer_jax.experiment import evals
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import shared as sharing
from transformer_jax.training import evaluator

Section = Mapping[str, Any]


def build(
    sections: Mapping[str, Section],
    program: programs.Program,
    shared: sharing.Shared,
    *,
    class_names: Sequence[str] | None = None,
    keep: Mapping[str, outputs.Keep] | None = None,
) -> list[evaluator.Evaluator]:
    """The evaluators of `config.evals`. `class_names` are those of the head; `keep[name]` is given the predictions of
    the evaluator."""
    built = []
    for name, section in sections.items():
        kept = (keep or {}).get(name)
        if section["kind"] in evals.HEADED:
            built.append(_HEADED[section["kind"]](name, section, program, shared, class_names, kept))
        else:
            built.append(_frozen(name, section, program, shared, kept))
    return built


def _classification(
    name: str,
    section: Section,
    program: programs.Program,
    shared: sharing.Shared,
    class_names: Sequence[str] | None,
    keep: outputs.Keep | None,
) -> evaluator.Evaluator:
    data = shared.eval_pipeline(name, section, section["split"], program, classes=not section["subset"])
    columns = _columns(name, data, class_names) if section["subset"] else None
    loss = program.settings["train"]["loss"]
    return classification.Classification(
        name, data, program.predict, program.strategy.put, loss=loss, columns=columns, keep=keep
    )


def _multilabel(
    name: str,
    section: Section,
    program: programs.Program,
    shared: sharing.Shared,
    class_names: Sequence[str] | None,
    keep: outputs.Keep | None,
) -> evaluator.Evaluator:
    data = shared.eval_pipeline(name, section, section["split"], program, rows=True)
    return multilabel.MultiLabel(name, data, program.predict, program.strategy.put, keep=keep)


def _frozen(
    name: str, section: Section, program: programs.Program, shared: sharing.Shared, keep: outputs.Keep | None
) -> evaluator.Evaluator:
    """An evaluator of features, whatever the classes of its data."""
    constructor, keywords = _FROZEN[section["kind"]]
    options = {key: section[key] for key in keywords}
    train, test = (
        shared.eval_pipeline(name, section, split, program, classes=False) for split in evals.splits(section)
    )
    return constructor(name, train, test, program.features, program.strategy.put, keep=keep, **options)


_HEADED: dict[str, Callable[..., evaluator.Evaluator]] = {
    "classification": _classification,
    "multilabel": _multilabel,
}
_FROZEN: dict[str, tuple[Callable[..., evaluator.Evaluator], tuple[str, ...]]] = {
    "fewshot": (fewshot.FewShot, ("shots", "seeds", "l2")),
    "knn": (knn.Neighbours, ("k", "temperature")),
    "probe": (linear.Linear, ("l2", "held_out")),
}


def _columns(name: str, data: pipeline.Evaluate, class_names: Sequence[str] | None) -> np.ndarray:
    """Which logit stands for each class of the data; `InputError` unless the model knows all of them, once each."""
    if class_names is None:
        raise types.InputError(
            f"The classes of a subset are found by name: nothing names those of the model that evals.{name} judges."
            " Take a checkpoint that names them, or add an evaluator that reads all of them (subset=False)."
        )
    columns, counts = {known: i for i, known in enumerate(class_names)}, collections.Counter(class_names)
    wrong = [own for own in data.class_names if counts[own] != 1]
    if wrong:
        said = ", ".join(map(repr, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise types.InputError(
            f"The classes of a subset are some of the model's, each of one name: of the {len(data.class_names)} of"
            f" evals.{name}, {len(wrong)} are not, or are more than one: {said}."
            f"{paths.did_you_mean(wrong[0], class_names)} The model knows {len(class_names)}:"
            f" {', '.join(map(repr, class_names[:8]))}{', ...' if len(class_names) > 8 else ''}."
        )
    return np.array([columns[own] for own in data.class_names])
