"""The report of an evaluation: which classes are worst, what is taken for what, and the most confident errors."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from transformer_jax import experiment, types
from transformer_jax.data import ops, order, preview, sources
from transformer_jax.training import report

ROWS = 20
"""Classes and confusions in a table."""
ERRORS = 36
"""Images on a contact sheet."""
MATRIX = 100
"""Up to so many classes are drawn as a matrix."""


class Outcome(NamedTuple):
    """What became of examples and their labels; an example with several labels is there once for each."""

    example: Int[np.ndarray, " pairs"]
    """The row of the predictions."""
    label: Int[np.ndarray, " pairs"]
    predicted: Int[np.ndarray, " pairs"]
    right: Bool[np.ndarray, " pairs"]

    @classmethod
    def of(cls, rows: Mapping[str, np.ndarray]) -> "Outcome":
        """From the rows of an evaluator, as `evaluation.predictions` describes them."""
        if rows["label"].ndim == 1:
            label, predicted = rows["label"], rows["predicted"]
            return cls(np.arange(len(label)), label, predicted, label == predicted)
        example, label = np.nonzero(rows["label"])
        predicted = rows["predicted"][example]
        return cls(example, label, predicted, (predicted >= 0) & rows["label"][example, predicted])


def folder(path: str) -> Path:
    """The directory a report is written to, made if it is not there."""
    place = Path(path).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise types.InputError(f"--report must be a directory one can write to: {path}: {error.strerror}.") from None
    return place


def write(
    directory: Path,
    settings: Mapping[str, Any],
    found: experiment.Judgement,
    *,
    shared: experiment.Shared,
    subtitle: str = "",
) -> Path:
    """Writes `report.html` and its pictures as PNG. Returns the page.

    Images are read again, only those of the contact sheets.
    """
    sections = [_numbers(found)]
    for name, section in settings["evals"].items():
        if "predicted" in found.rows[name]:
            split = section.get("split", section.get("test_split"))
            source = shared.source(section, split)
            sections += _sections(directory, name, section["preprocess"], source, found.rows[name])
    page = directory / report.PAGE
    page.write_text(report.page(settings["name"], sections, subtitle=subtitle))
    return page


def _numbers(found: experiment.Judgement) -> report.Section:
    """Every number, accuracies with their intervals."""
    ends = found.with_intervals()
    table: list[Sequence[str]] = [("metric", "value", "95 % interval")]
    for name, value in found.metrics.items():
        low, high = ends.get(f"{name}_low"), ends.get(f"{name}_high")
        table.append((name, f"{value:.6g}", "" if low is None or high is None else f"{low:.4f} to {high:.4f}"))
    text = "Intervals: percentile bootstrap over the test examples. They know nothing of the spread between runs."
    return report.Section("Numbers", text, table=table)


def _sections(
    directory: Path, name: str, preprocess: str, source: sources.Source, rows: Mapping[str, np.ndarray]
) -> list[report.Section]:
    """What one evaluator got wrong."""
    outcome, names = Outcome.of(rows), source.class_names
    sections = [
        report.Section(f"{name}: the worst classes", table=worst(outcome, names)),
        report.Section(f"{name}: the most frequent confusions", table=confusions(outcome, names)),
    ]
    if len(names) <= MATRIX and rows["label"].ndim == 1:
        drawn = report.matrix(confusion(outcome, len(names)), names, title=name)
        (directory / f"{name}_confusion.png").write_bytes(drawn.png)
        sections.append(report.Section(f"{name}: true and predicted", figures=[drawn]))
    picture = _errors(preprocess, source, rows, outcome)
    if picture is not None:
        (directory / f"{name}_errors.png").write_bytes(picture.png)
        sections.append(report.Section(f"{name}: the most confident errors", pictures=[picture]))
    return sections


def worst(outcome: Outcome, names: Sequence[str], *, count: int = ROWS) -> list[Sequence[str]]:
    """The classes of the lowest accuracy, worst first, of equals the larger one first; those without examples are left
    out."""
    total = np.bincount(outcome.label, minlength=len(names))
    right = np.bincount(outcome.label[outcome.right], minlength=len(names))
    share = right / np.maximum(total, 1)
    ranked = [index for index in np.lexsort((np.arange(len(names)), -total, share)).tolist() if total[index]]
    table = [(names[i], f"{100 * share[i]:.1f} %", str(right[i]), str(total[i])) for i in ranked[:count]]
    return [("class", "accuracy", "right", "examples"), *table]


def confusions(outcome: Outcome, names: Sequence[str], *, count: int = ROWS) -> list[Sequence[str]]:
    """What is most often taken for what, with its share of the examples of the true class."""
    wrong = ~outcome.right
    pairs, counts = np.unique(np.stack([outcome.label, outcome.predicted])[:, wrong], axis=1, return_counts=True)
    total = np.bincount(outcome.label, minlength=len(names))
    table = []
    for i in np.argsort(-counts, kind="stable")[:count]:
        true, predicted = pairs[:, i].tolist()
        table.append((names[true], _name(names, predicted), str(counts[i]), f"{100 * counts[i] / total[true]:.1f} %"))
    return [("true", "predicted", "examples", "of the class"), *table]


def confusion(outcome: Outcome, classes: int) -> Int[np.ndarray, "true predicted"]:
    """How many examples of each class are taken for each. Predictions that are no number are in none."""
    matrix = np.zeros((classes, classes), np.int64)
    known = outcome.predicted >= 0
    np.add.at(matrix, (outcome.label[known], outcome.predicted[known]), 1)
    return matrix


def _errors(
    preprocess: str, source: sources.Source, rows: Mapping[str, np.ndarray], outcome: Outcome
) -> report.Picture | None:
    """The errors of the highest probability as the model saw them; `None` when there is none, or nobody knows which
    example a row is."""
    where = rows.get("index", np.arange(len(source)) if len(rows["label"]) == len(source) else None)
    wrong = np.unique(outcome.example[~outcome.right])
    if where is None or len(wrong) == 0:
        return None
    ranked = wrong[np.argsort(-rows["probability"][wrong], kind="stable")][:ERRORS]
    steps, tiles, captions = ops.parse(preprocess), [], []
    for row in ranked:
        index = int(where[row])
        example = source[index]
        rng = order.generator(0, 0, index)  # those of an evaluation
        tiles.append(preview.shown(example, steps, rng, where=f"example {index}"))
        said = _name(source.class_names, int(rows["predicted"][row]))
        true = preview.caption(source, example["label"])
        captions.append(f"{true}\n-> {said}\n{rows['probability'][row]:.3f}")
    image = io.BytesIO()
    preview.sheet(tiles, captions).save(image, "PNG")
    text = f"{len(ranked)} of {len(wrong)} errors, the most confident first: true class, predicted class, probability."
    return report.Picture(image.getvalue(), text)


def _name(names: Sequence[str], predicted: int) -> str:
    return names[predicted] if predicted >= 0 else "no number"
