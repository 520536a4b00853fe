"""Every number of a protocol's `results.json`, worked out again from the saved predictions with NumPy alone.

`python -m tests.protocol.recompute RUN` compares. Nothing of the package is imported.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

RATE = "schedule.base"


def results(folder, select="eval/top1"):
    """What `results.json` must say; which runs there are and what they were told is read from their outcomes."""
    targets = {}
    for place in sorted(path.parent for path in folder.glob("*/finetune")):
        targets[place.name] = {m: method(place / m) for m in ("finetune", "scratch") if (place / m).is_dir()}
        if (place / "probe").is_dir():
            targets[place.name]["probe"] = {**summary([rows(place / "probe", "eval")]), "choice": None, "others": {}}
    return {"targets": targets, "pretrained": pretrained(folder / "pretrained" / "predictions"), "groups": {}}


def method(place):
    """Tune, pick, test: from the predictions of every run."""
    tuned = []
    for run in sorted(place.glob("lr_*")):
        outcome = json.loads((run / "outcome.json").read_text())
        if outcome["metrics"].get("diverged"):
            continue
        found = rows(run, "eval")
        score, loss = (found["predicted"] == found["label"]).mean(), found["loss"].astype(np.float64).mean()
        tuned.append((score, -loss, outcome["settings"]["schedule"]["base"]))
    finals = [rows(run, "eval") for run in sorted(place.glob("seed_*"))]
    return {**summary(finals), "choice": {RATE: max(tuned)[2]}, "others": {}}


def rows(run, name):
    """The saved rows of one evaluator."""
    with np.load(run / "predictions" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def summary(runs):
    """Mean, sample standard deviation, the runs, and the interval of the bootstrap."""
    scores = [float((run["predicted"] == run["label"]).mean()) for run in runs]
    mean, n = sum(scores) / len(scores), len(runs[0]["label"])
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    low, high = (quantile(n, mean, tail) / n for tail in (0.025, 0.975))
    return {"mean": mean, "std": spread, "runs": scores, "low": low, "high": high}


def quantile(n, p, tail):
    """The smallest k with P(Binomial(n, p) <= k) >= tail, term by term."""
    total = 0.0
    for k in range(n + 1):
        if p in (0.0, 1.0):
            term = float(k == n * p)
        else:
            log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            term = math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))
        total += term
        if total >= tail:
            return k
    return n


def pretrained(place):
    """The evaluators of the pretrained weights: several predictions of one split, or sets of right classes."""
    found = {}
    for file in sorted(place.glob("*.npz")):
        with np.load(file) as saved:
            label, name = saved["label"], file.stem
            if label.ndim == 2:
                kept = label.any(axis=1)
                right = label[np.arange(len(label)), saved["predicted"]] > 0
                found |= {f"{name}/top1": float(right[kept].mean()), f"{name}/examples": float(kept.sum())}
                continue
            scores = {}
            for key in saved.files:
                if key.startswith("predicted"):
                    metric = key.removeprefix("predicted_").partition("_seed")[0]
                    scores.setdefault(metric, []).append(float((saved[key] == label).mean()))
            found |= {f"{name}/{metric}": sum(values) / len(values) for metric, values in scores.items()}
    return found


def differences(found, expected, where="results", tolerance=1e-9):
    """Every place where two trees of numbers differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{where}/{key} is in one of the two only" for key in set(found) ^ set(expected)]
        both = sorted(set(found) & set(expected))
        return missing + [d for key in both for d in differences(found[key], expected[key], f"{where}/{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = zip(found, expected, strict=True)
        return [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{where}[{i}]")]
    if isinstance(expected, float) and isinstance(found, int | float):
        return [] if abs(found - expected) <= tolerance else [f"{where}: {found!r}, recomputed {expected!r}"]
    return [] if found == expected else [f"{where}: {found!r}, recomputed {expected!r}"]


def missing_from_report(page, recomputed):
    """Numbers that the page should show and does not, as it would write them."""
    cells = []
    for methods in recomputed["targets"].values():
        for found in methods.values():
            spread = f" ± {100 * found['std']:.1f}" if len(found["runs"]) > 1 else ""
            choice = f" (lr {found['choice'][RATE]:g})" if found["choice"] else ""
            cells.append(
                f"{100 * found['mean']:.1f}{spread} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]{choice}"
            )
    cells += [f"{value:.4g}" for value in recomputed["pretrained"].values()]
    return [cell for cell in cells if f"<td>{cell}</td>" not in page]


if __name__ == "__main__":
    run = Path(sys.argv[1])
    wrong = differences(json.loads((run / "results.json").read_text()), results(run))
    print("\n".join(wrong) or "every number is what the predictions say")
    sys.exit(bool(wrong))
