"""What a finished protocol leaves for the eye: a table, learning curves, accuracy against the number of labels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax.training import report

COLOURS = {"finetune": "#1f77b4", "scratch": "#d62728", "probe": "#2ca02c"}


def write(folder: Path, results: Mapping[str, Mapping[str, Any]], labels: Mapping[str, int], table: str) -> Path:
    """`report.html` and its PNG plots in `folder`; returns the page.

    `labels` counts the labelled examples of each target's final training split.
    """
    comparison = folder / "accuracy_by_labels.png"
    plot_accuracy(results, labels, comparison)
    sections = [("Accuracy on the test split", table, [comparison])]
    sections.append(("Pretraining", "", [curves(folder, {"pretrain": folder / "pretrain"}, "pretrain")]))
    for name, methods in results.items():
        runs = {
            f"{method} (lr {result['lr']:g})": folder / name / method / "seed_0"
            for method, result in methods.items()
            if result["lr"] is not None
        }
        sections.append((name, "", [curves(folder, runs, name)]))
    return report.page(folder / "report.html", "Transfer protocol", sections)
