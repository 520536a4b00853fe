"""The closed loop of the ViT paper: pretrain, tune on a development split, retrain with seeds, compare.

For every target, each learning rate of its grid is tried on the development split; the best one is retrained on the
full training split with several seeds, and the test split is read once a seed. Beside fine-tuning stand training from
scratch with a grid of its own, and a linear probe on the frozen features. (2010.11929 section 4.1, table 4.)
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from transformer_jax import config, experiment, types
from transformer_jax.protocol import page

METHODS = tuple(page.METHODS)
EVALUATOR = "eval"
"""The evaluator that every experiment of a target has; its split is set to the development or the test split."""
OUTCOME = "outcome.json"
Results = dict[str, dict[str, dict[str, Any]]]
"""`{target: {method: {"mean", "std", "runs", "lr"}}}`, accuracies in 0..1; the probe has no learning rate (None)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A data set to transfer to: two experiments, their learning rates, and which split plays which part.

    The experiments read `train` while tuning and `final` afterwards, and are judged on `dev` and then on `test`.
    """

    finetune: Mapping[str, Any]
    finetune_grid: Sequence[float]
    scratch: Mapping[str, Any]
    scratch_grid: Sequence[float]
    train: str
    dev: str
    final: str
    test: str = "test"
    probe_l2: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """The whole loop. `seeds` counts the final runs of a method, which differ in their seed only."""

    name: str
    pretrain: Mapping[str, Any]
    targets: Mapping[str, Any]
    seeds: int = 3


def resolve(raw: ml_collections.ConfigDict, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The protocol with its overrides (`targets.NAME.finetune.train.total=...`) applied and every section checked."""
    settings = ml_collections.ConfigDict(raw.to_dict())
    config.override(settings, _schema(settings.to_dict()), overrides or {})
    top = config.check(settings.to_dict(), config.fields(Protocol), "")
    top["pretrain"] = experiment.resolve(ml_collections.ConfigDict(top["pretrain"]))
    for name, section in top["targets"].items():
        target = config.check(section, config.fields(Target), f"targets.{name}")
        for method in ("finetune", "scratch"):
            target[method] = experiment.resolve(ml_collections.ConfigDict(target[method]))
            if EVALUATOR not in target[method]["evals"]:
                raise types.InputError(
                    f"Every experiment of a target has an evaluator named {EVALUATOR!r}:"
                    f" targets.{name}.{method}.evals has {sorted(target[method]['evals'])}."
                )
        top["targets"][name] = target
    return top


def _schema(settings: Mapping[str, Any]) -> dict[str, config.Field]:
    """Every setting a protocol has, by dotted path."""
    known = config.fields(Protocol)
    inner = {"pretrain": settings["pretrain"]}
    for name, target in settings["targets"].items():
        known |= {f"targets.{name}.{key}": field for key, field in config.fields(Target).items()}
        inner |= {f"targets.{name}.{method}": target[method] for method in ("finetune", "scratch")}
    for where, section in inner.items():
        known |= {f"{where}.{key}": field for key, field in experiment.schema(section).items()}
    return known


def run(settings: Mapping[str, Any], workdir: str | os.PathLike[str]) -> Results:
    """Everything that is not yet done, then `results.json`, `results.md` and `report.html`.

    Each run has its own directory and leaves an `outcome.json`; one that is there is not run again.
    """
    folder = Path(workdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    shared = experiment.Shared()
    pretrained = folder / "pretrain"
    once(pretrained, settings["pretrain"], lambda: experiment.train(settings["pretrain"], pretrained, shared=shared))
    results: Results = {}
    targets = settings["targets"]
    for name, target in targets.items():
        target = Target(**target)
        runner = _Runner(folder / name, shared, final=target.final)
        finetune = dict(target.finetune, init_from=dict(target.finetune["init_from"] or {}, path=str(pretrained)))
        results[name] = {
            "finetune": runner.method("finetune", finetune, target.finetune_grid, target, settings["seeds"]),
            "scratch": runner.method("scratch", target.scratch, target.scratch_grid, target, settings["seeds"]),
            "probe": runner.probe(finetune, target),
        }
        _write(folder / "results.json", results)
        print(f"{name}: " + ", ".join(f"{m} {100 * r['mean']:.1f} %" for m, r in results[name].items()), flush=True)
    (folder / "results.md").write_text(table(results))
    finals = {name: shared.source(target["finetune"]["data"], target["final"]) for name, target in targets.items()}
    labels = {name: len(source) for name, source in finals.items()}
    chance = 1.0 / next(iter(finals.values())).num_classes
    page.write(folder, settings["name"], results, labels, chance)
    return results


class _Runner:
    """The runs of one target."""

    def __init__(self, folder: Path, shared: experiment.Shared, *, final: str):
        self.folder = folder
        self.shared = shared
        self.final = final

    def method(
        self, method: str, settings: Mapping[str, Any], grid: Sequence[float], target: Target, seeds: int
    ) -> dict[str, Any]:
        """Tune, pick, retrain."""
        tried = {
            rate: self._train(method, f"lr_{rate:g}", settings, rate, 0, target.train, target.dev) for rate in grid
        }
        best = max(tried, key=lambda rate: (tried[rate][f"{EVALUATOR}/top1"], -tried[rate][f"{EVALUATOR}/loss"]))
        finals = [
            self._train(method, f"seed_{seed}", settings, best, seed, target.final, target.test)
            for seed in range(seeds)
        ]
        return summary([final[f"{EVALUATOR}/top1"] for final in finals], best)

    def _train(
        self, method: str, name: str, settings: Mapping[str, Any], rate: float, seed: int, split: str, judged: str
    ) -> dict[str, float]:
        """One run on `split`, judged on the split `judged`: its last metrics. Final runs leave a checkpoint."""
        settings = dict(
            settings,
            seed=seed,
            schedule=dict(settings["schedule"], base=rate),
            data=dict(settings["data"], split=split),
            evals=dict(settings["evals"], **{EVALUATOR: dict(settings["evals"][EVALUATOR], split=judged)}),
        )
        folder = self.folder / method / name
        options = {"shared": self.shared, "quiet": True, "save": split == self.final}
        return once(folder, settings, lambda: experiment.train(settings, folder, **options))

    def probe(self, settings: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """The linear probe: its penalty is picked on the development split, then it is fitted on the full one."""
        splits = dict(train=target.train, dev=target.dev, final=target.final, test=target.test)

        def fit() -> dict[str, float]:
            return experiment.probe(settings, splits, l2=target.probe_l2, shared=self.shared)

        outcome = once(self.folder / "probe", {"experiment": settings, **splits, "l2": target.probe_l2}, fit)
        return summary([outcome["top1"]], None)


def once(folder: Path, settings: Mapping[str, Any], work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `work()` returned when it was last done in this folder with these settings; else do it and write it down."""
    file = folder / OUTCOME
    if file.exists():
        saved = json.loads(file.read_text())
        if saved["settings"] != config.plain(settings):
            changes = [f"{k}: {a!r} -> {b!r}" for k, (a, b) in config.changes(saved["settings"], settings).items()]
            raise types.InputError(
                f"A finished run keeps its settings: {folder} was made with others ({'; '.join(changes[:5])})."
                " Choose another --workdir, or remove that folder to run it again."
            )
        return saved["metrics"]
    folder.mkdir(parents=True, exist_ok=True)
    metrics = work()
    _write(file, {"settings": config.plain(settings), "metrics": metrics})
    return metrics


def summary(accuracies: Sequence[float], rate: float | None) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single run), the runs, and the learning rate they used."""
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return {"mean": statistics.fmean(accuracies), "std": spread, "runs": list(accuracies), "lr": rate}


def table(results: Results) -> str:
    """The results in Markdown: per cent correct on the test split, mean and spread over the seeds."""
    lines = [f"| target | {' | '.join(METHODS)} |", f"|---|{'---|' * len(METHODS)}"]
    for name, methods in results.items():
        lines.append(f"| {name} | {' | '.join(page.cell(methods[method]) for method in METHODS)} |")
    return "\n".join(lines) + "\n"


def _write(file: Path, value: Any) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(partial, file)
