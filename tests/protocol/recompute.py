"""Every number of a protocol's `results.json`, worked out again from the saved predictions with NumPy alone.

`python -m tests.protocol.recompute RUN` compares. Nothing of the package is imported.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

RATE = "schedule.base"


def results(folder, groups=None):
    """What `results.json` must say; which runs there are and what they were told is read from their outcomes."""
    targets = {}
    for place in sorted(path.parent for path in folder.glob("*/finetune")):
        targets[place.name] = {m: method(place / m) for m in ("finetune", "scratch") if (place / m).is_dir()}
        if (place / "probe").is_dir():
            targets[place.name]["probe"] = {**summary([rows(place / "probe", "eval")]), "choice": None, "others": {}}
    means = {}
    for name, members in ({**groups, "all": list(targets)} if groups else {}).items():
        common = set.intersection(*(set(targets[member]) for member in members))
        means[name] = {m: sum(targets[member][m]["mean"] for member in members) / len(members) for m in common}
    return {"targets": targets, "pretrained": frozen(folder / "pretrained"), "groups": means}


def method(place):
    """Tune, pick, test: from the predictions of every run."""
    tuned = []
    for run in sorted(place.glob("tune/*")):
        outcome = json.loads((run / "outcome.json").read_text())
        if outcome["metrics"].get("diverged"):
            continue
        found = rows(run, "eval")
        score, loss = (found["predicted"] == found["label"]).mean(), found["loss"].astype(np.float64).mean()
        tuned.append((score, -loss, outcome["settings"]["experiment"]["schedule"]["base"]))
    runs = sorted(place.glob("seed_*"))
    judged = [{name: value for name, value in frozen(run).items() if not name.startswith("eval/")} for run in runs]
    others = {name: spread([each[name] for each in judged]) for name in judged[0] if not name.endswith("/examples")}
    return {**summary([rows(run, "eval") for run in runs]), "choice": {RATE: max(tuned)[2]}, "others": others}


def rows(run, name):
    """The saved rows of one evaluator."""
    with np.load(run / "predictions" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def summary(runs):
    """Mean, sample standard deviation, the runs, and the interval of the bootstrap."""
    found = spread([float((run["predicted"] == run["label"]).mean()) for run in runs])
    n = len(runs[0]["label"])
    low, high = (quantile(n, found["mean"], tail) / n for tail in (0.025, 0.975))
    return {**found, "low": low, "high": high}


def spread(values):
    """Mean, sample standard deviation and the values."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": sum(values) / len(values), "std": deviation, "runs": values}


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


def frozen(run):
    """Every accuracy of a run: of classifiers, of sets of right classes, of several predictions of one split."""
    found = {}
    for file in sorted((run / "predictions").glob("*.npz")):
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
                    metric = key.removeprefix("predicted").removeprefix("_").partition("_seed")[0] or "top1"
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
