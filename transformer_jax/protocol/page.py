"""What a finished protocol leaves for the eye: a table, accuracy against the number of labels, learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.training import report, reporting

METHODS = {
    "finetune": "pretrained, fine-tuned",
    "scratch": "from scratch",
    "probe": "linear probe on frozen features",
}


def write(
    folder: Path,
    title: str,
    results: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, int],
    notes: Sequence[str] = (),
) -> None:
    """`report.html` and its plots as PNG files. `labels` counts the labelled examples of each target, `notes` are
    sentences about the learning rates."""
    compared = accuracy_by_labels(results, labels)
    (folder / "accuracy.png").write_bytes(compared.png)
    sections = [
        report.Section(
            "Accuracy on the test split",
            "Per cent correct, mean and spread over seeds. Learning rates and penalties were picked on the development"
            f" split; the test split was read once a final run. {' '.join(notes)}",
            table=rows(results, labels),
            figures=[compared],
        ),
        report.Section("Pretraining", figures=_curves({"pretraining": folder / "pretrain"}, folder, "pretrain")),
    ]
    for name, methods in results.items():
        runs = {METHODS[m]: folder / name / m / "seed_0" for m, r in methods.items() if r["lr"] is not None}
        sections.append(report.Section(f"{name}, seed 0", figures=_curves(runs, folder, name)))
    (folder / report.PAGE).write_text(report.page(title, sections, subtitle="pretrain, tune, retrain, compare"))


def rows(results: Mapping[str, Mapping[str, Any]], labels: Mapping[str, int]) -> list[list[str]]:
    """The table: a head, then one row a target."""
    table = [["target", "labels", *METHODS.values()]]
    for name, methods in results.items():
        table.append([name, str(labels[name]), *(cell(methods[method]) for method in METHODS)])
    return table


def cell(result: Mapping[str, Any]) -> str:
    """`91.3 ± 0.4 (lr 0.03)`: no spread for a single run, no rate for a probe."""
    spread = f" ± {100 * result['std']:.1f}" if len(result["runs"]) > 1 else ""
    rate = f" (lr {result['lr']:g})" if result["lr"] is not None else ""
    return f"{100 * result['mean']:.1f}{spread}{rate}"


def accuracy_by_labels(results: Mapping[str, Mapping[str, Any]], labels: Mapping[str, int]) -> report.Figure:
    """One line a method over the number of labels, with the spread over seeds."""
    order = sorted(results, key=lambda name: labels[name])
    lines = {
        title: report.Series(
            [labels[name] for name in order],
            [100 * results[name][method]["mean"] for name in order],
            spread=[100 * results[name][method]["std"] for name in order],
        )
        for method, title in METHODS.items()
    }
    return report.curves(lines, title="What pretraining buys", x="labelled examples", y="test accuracy, %", log_x=True)


def _curves(runs: Mapping[str, Path], folder: Path, name: str) -> list[report.Figure]:
    """The training loss of some runs in one plot, also as a PNG."""
    lines = {title: reporting.read(run / reporting.METRICS) for title, run in runs.items()}
    series = {title: report.series_of(found, "train/loss") for title, found in lines.items()}
    figure = report.curves(series, title="training loss", y="loss, nats", smooth=0.8, log_y=True)
    (folder / f"{name}_loss.png").write_bytes(figure.png)
    return [figure]
