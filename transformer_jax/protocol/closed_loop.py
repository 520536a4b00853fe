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
from transformer_jax.training import failures, preemption

METHODS = tuple(page.METHODS)
EVALUATOR = "eval"
"""The evaluator that every experiment of a target has; its split is set to the development or the test split."""
OUTCOME = "outcome.json"
DIVERGED = "diverged"
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
    config.check(raw.to_dict(), config.fields(Protocol), "")
    settings = ml_collections.ConfigDict(raw.to_dict())
    config.override_in_order(settings, _schema, overrides or {})
    top = config.check(settings.to_dict(), config.fields(Protocol), "")
    if top["seeds"] < 1:
        raise types.InputError(f"A protocol needs at least one seed: config.seeds is {top['seeds']}.")
    top["pretrain"] = experiment.resolve(ml_collections.ConfigDict(top["pretrain"]))
    for name, section in top["targets"].items():
        target = config.check(section, config.fields(Target), f"targets.{name}")
        for method in ("finetune", "scratch"):
            target[method] = experiment.resolve(ml_collections.ConfigDict(target[method]))
            judge = target[method]["evals"].get(EVALUATOR, {})
            if judge.get("kind") != "classification":
                raise types.InputError(
                    f"Every experiment of a target has an evaluator {EVALUATOR!r} of kind 'classification':"
                    f" targets.{name}.{method}.evals has {sorted(target[method]['evals'])}."
                )
            if (target[method]["init_from"] is None) == (method == "finetune"):
                raise types.InputError(
                    f"Fine-tuning has an init_from section and training from scratch has none: see"
                    f" targets.{name}.{method}."
                )
            if not target[f"{method}_grid"]:
                raise types.InputError(f"targets.{name}.{method}_grid must name at least one learning rate.")
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
    with preemption.listen() as stop:
        labels = _open_everything(settings, shared)
        pretrain = settings["pretrain"]
        once(folder / "pretrain", pretrain, lambda: experiment.train(pretrain, folder / "pretrain", shared=shared))
        results: Results = {}
        notes: list[str] = []
        for name in sorted(settings["targets"], key=lambda name: labels[name]):
            runner = _Runner(folder, name, Target(**settings["targets"][name]), pretrain, shared, stop)
            results[name] = runner.run(settings["seeds"])
            _write(folder / "results.json", results)
            print("\n".join([f"{name}: {_line(results[name])}", *runner.notes]), flush=True)
            notes += runner.notes
    (folder / "results.md").write_text(
        "".join([table(results), "\n" * bool(notes), *(f"- {note}\n" for note in notes)])
    )
    page.write(folder, settings["name"], results, labels, notes)
    return results


def _line(methods: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{method} {100 * result['mean']:.1f} %" for method, result in methods.items())


def _open_everything(settings: Mapping[str, Any], shared: experiment.Shared) -> dict[str, int]:
    """Every split of every target is opened, and every experiment put together, before the first step of the first.

    Returns the number of labelled examples of each target's final split.
    """
    problems = experiment.missing(settings["pretrain"])
    for target in settings["targets"].values():
        for method in ("finetune", "scratch"):
            problems += experiment.missing(dict(target[method], init_from=None))
    experiment.preflight(problems)
    labels = {}
    for name, target in settings["targets"].items():
        for method in ("finetune", "scratch"):
            setup = experiment.prepare(dict(target[method], init_from=None), shared)
            judge = setup.settings["evals"][EVALUATOR]
            for split in (target["dev"], target["test"]):
                shared.eval_pipeline(EVALUATOR, judge, split, setup.program)
        labels[name] = len(shared.source(target["finetune"]["data"], target["final"]))
        shared.source(target["finetune"]["data"], target["train"])
    return labels


class _Runner:
    """The runs of one target."""

    def __init__(
        self,
        folder: Path,
        name: str,
        target: Target,
        pretrain: Mapping[str, Any],
        shared: experiment.Shared,
        stop: preemption.Stop,
    ):
        self.folder = folder / name
        self.target = target
        self.pretrain = pretrain
        self.shared = shared
        self.stop = stop
        self.notes: list[str] = []
        """What a reader of the results should know about the learning rates."""
        self.weights = dict(target.finetune["init_from"] or {}, path=str(folder / "pretrain"))

    def run(self, seeds: int) -> dict[str, dict[str, Any]]:
        """All methods."""
        return {
            "finetune": self.method("finetune", self.target.finetune, self.target.finetune_grid, seeds),
            "scratch": self.method("scratch", self.target.scratch, self.target.scratch_grid, seeds),
            "probe": self.probe(),
        }

    def method(self, method: str, settings: Mapping[str, Any], grid: Sequence[float], seeds: int) -> dict[str, Any]:
        """Tune on the development split, pick, retrain on the full training split, judge on the test split."""
        target = self.target
        tuned = {rate: self._train(method, settings, rate, None, target.train, target.dev) for rate in grid}
        best = self._pick(method, tuned)
        finals = [self._train(method, settings, best, seed, target.final, target.test) for seed in range(seeds)]
        return summary([final[f"{EVALUATOR}/top1"] for final in finals], best)

    def _pick(self, method: str, tuned: Mapping[float, Mapping[str, Any]]) -> float:
        """The rate that is most accurate on the development split, of equals the one with the lower loss."""
        where = f"{self.folder.name}, {method}"
        diverged = [rate for rate, metrics in tuned.items() if metrics.get(DIVERGED)]
        good = {rate: metrics for rate, metrics in tuned.items() if rate not in diverged}
        if diverged:
            self.notes.append(f"{where}: training diverged at the rate {', '.join(f'{rate:g}' for rate in diverged)}.")
        if not good:
            raise types.InputError(
                f"One learning rate of a grid must train: {where} diverged at each of {sorted(tuned)}. Lower them."
            )
        best = max(good, key=lambda rate: (good[rate][f"{EVALUATOR}/top1"], -good[rate][f"{EVALUATOR}/loss"]))
        ends = {min(tuned): "lowest", max(tuned): "highest"}
        if best in ends and len(ends) == 2:
            self.notes.append(f"{where}: the best rate, {best:g}, is the {ends[best]} of its grid.")
        return best

    def _train(
        self, method: str, settings: Mapping[str, Any], rate: float, seed: int | None, split: str, judged: str
    ) -> dict[str, Any]:
        """One run on `split`, judged on the split `judged`: its last metrics.

        Runs with a seed are final ones and leave a checkpoint; the others tune, with seed 0, and may diverge.
        """
        self.stop.check()
        settings = dict(
            settings,
            seed=seed or 0,
            schedule=dict(settings["schedule"], base=rate),
            data=dict(settings["data"], split=split),
            evals=dict(settings["evals"], **{EVALUATOR: dict(settings["evals"][EVALUATOR], split=judged)}),
        )
        key = dict(settings, pretrain=self.pretrain if method == "finetune" else None)
        if method == "finetune":  # not part of the key: the whole folder may be moved
            settings["init_from"] = self.weights
        folder = self.folder / method / (f"lr_{rate:g}" if seed is None else f"seed_{seed}")

        def train() -> dict[str, Any]:
            try:
                return experiment.train(settings, folder, shared=self.shared, quiet=True, keep=seed is not None)
            except failures.Diverged:
                if seed is not None:
                    raise
                return {DIVERGED: True}

        return once(folder, key, train)

    def probe(self) -> dict[str, Any]:
        """The linear probe: its penalty is picked on the development split, then it is fitted on the full one."""
        self.stop.check()
        target = self.target
        splits = dict(train=target.train, dev=target.dev, final=target.final, test=target.test)
        settings = dict(target.finetune, init_from=self.weights)

        def fit() -> dict[str, float]:
            return experiment.probe(settings, splits, l2=target.probe_l2, shared=self.shared)

        key = {"experiment": target.finetune, "pretrain": self.pretrain, **splits, "l2": target.probe_l2}
        return summary([once(self.folder / "probe", key, fit)["top1"]], None)


def once(folder: Path, settings: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
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
