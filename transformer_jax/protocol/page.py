"""What a finished protocol leaves for the eye: tables, accuracy against the number of labels, learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.protocol import plan
from transformer_jax.training import report, reporting

METHODS = {
    "finetune": "pretrained, fine-tuned",
    "scratch": "from scratch",
    "probe": "linear probe on frozen features",
}
Targets = Mapping[str, Mapping[str, Any]]


def write(
    folder: Path,
    title: str,
    results: Mapping[str, Any],
    labels: Mapping[str, int],
    notes: Sequence[str] = (),
    *,
    compare_labels: bool = True,
) -> None:
    """`report.html` and its plots as PNG files. `labels` counts the labelled examples of each target, `notes` are
    sentences about the choices; `compare_labels` draws accuracy against the number of labels."""
    targets = results["targets"]
    compared = [accuracy_by_labels(targets, labels)] if compare_labels else []
    for figure in compared:
        (folder / "accuracy.png").write_bytes(figure.png)
    sections = [
        report.Section(
            "Accuracy on the test split",
            "Per cent correct, mean and spread over seeds, and in brackets the 95 % bootstrap interval over the test"
            " examples. Rates and penalties were picked on the development split; the test split was read once a final"
            f" run. {' '.join(notes)}",
            table=rows(targets, labels),
            figures=compared,
        )
    ]
    sections += [
        report.Section(heading, table=table)
        for heading, table in (
            ("Means over targets", _group_rows(results["groups"])),
            ("The pretrained weights", _pretrained_rows(results["pretrained"])),
            ("Other evaluations of the final runs", _other_rows(targets)),
        )
        if len(table) > 1
    ]
    if (folder / "pretrain" / reporting.METRICS).exists():
        sections.append(
            report.Section("Pretraining", figures=_curves({"pretraining": folder / "pretrain"}, folder, "pretrain"))
        )
    for name, methods in targets.items():
        runs = {METHODS[m]: folder / name / m / "seed_0" for m, r in methods.items() if r["choice"] is not None}
        sections.append(report.Section(f"{name}, seed 0", figures=_curves(runs, folder, name)))
    (folder / report.PAGE).write_text(report.page(title, sections, subtitle="pretrain, tune, retrain, compare"))


def table(results: Mapping[str, Any]) -> str:
    """The results in Markdown: per cent correct on the test split, mean and spread over the seeds."""
    methods = _present(results["targets"])
    lines = [f"| target | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    for name, found in results["targets"].items():
        lines.append(f"| {name} | {' | '.join(_cell(found, method) for method in methods)} |")
    for name, means in results["groups"].items():
        cells = [f"{100 * means[method]:.1f}" if method in means else "" for method in methods]
        lines.append(f"| mean of {name} | {' | '.join(cells)} |")
    lines += [f"- pretrained weights, {name}: {value:.4f}" for name, value in results["pretrained"].items()]
    return "\n".join(lines) + "\n"


def rows(targets: Targets, labels: Mapping[str, int]) -> list[list[str]]:
    """The table: a head, then one row a target."""
    methods = _present(targets)
    found = [["target", "labels", *(METHODS[method] for method in methods)]]
    for name, results in targets.items():
        found.append([name, str(labels[name]), *(_cell(results, method, interval=True) for method in methods)])
    return found


def cell(result: Mapping[str, Any], *, interval: bool = False) -> str:
    """`91.3 ± 0.4 (lr 0.03)`: no spread for a single run, no choice for a probe; `[89.9, 92.5]` with the interval."""
    spread = f" ± {100 * result['std']:.1f}" if len(result["runs"]) > 1 else ""
    between = f" [{100 * result['low']:.1f}, {100 * result['high']:.1f}]" if interval else ""
    choice = f" ({plan.label(result['choice'])})" if result["choice"] else ""
    return f"{100 * result['mean']:.1f}{spread}{between}{choice}"


def accuracy_by_labels(targets: Targets, labels: Mapping[str, int]) -> report.Figure:
    """One line a method over the number of labels, with the spread over seeds."""
    order = sorted(targets, key=lambda name: labels[name])
    lines = {
        METHODS[method]: report.Series(
            [labels[name] for name in order if method in targets[name]],
            [100 * targets[name][method]["mean"] for name in order if method in targets[name]],
            spread=[100 * targets[name][method]["std"] for name in order if method in targets[name]],
        )
        for method in _present(targets)
    }
    return report.curves(lines, title="What pretraining buys", x="labelled examples", y="test accuracy, %", log_x=True)


def _present(targets: Targets) -> list[str]:
    """The methods that some target has, in their order."""
    return [method for method in METHODS if any(method in results for results in targets.values())]


def _cell(results: Mapping[str, Any], method: str, *, interval: bool = False) -> str:
    return cell(results[method], interval=interval) if method in results else ""


def _group_rows(groups: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    methods = [method for method in METHODS if any(method in means for means in groups.values())]
    found = [["targets", *(METHODS[method] for method in methods)]]
    for name, means in groups.items():
        found.append([name, *(f"{100 * means[m]:.1f}" if m in means else "" for m in methods)])
    return found


def _pretrained_rows(metrics: Mapping[str, float]) -> list[list[str]]:
    return [["metric", "value"], *([name, f"{value:.4g}"] for name, value in metrics.items())]


def _other_rows(targets: Targets) -> list[list[str]]:
    found = [["target", "method", "metric", "mean", "spread"]]
    for name, methods in targets.items():
        for method, result in methods.items():
            for metric, values in result["others"].items():
                found.append([name, METHODS[method], metric, f"{values['mean']:.4f}", f"{values['std']:.4f}"])
    return found


def _curves(runs: Mapping[str, Path], folder: Path, name: str) -> list[report.Figure]:
    """The training loss of some runs in one plot, also as a PNG."""
    lines = {title: reporting.read(run / reporting.METRICS) for title, run in runs.items()}
    series = {title: report.series_of(found, "train/loss") for title, found in lines.items()}
    figure = report.curves(series, title="training loss", y="loss, nats", smooth=0.8, log_y=True)
    (folder / f"{name}_loss.png").write_bytes(figure.png)
    return [figure]
