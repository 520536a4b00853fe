"""The runs of one target: tune, pick, retrain with seeds, probe. Each leaves an outcome and is not run again."""

import json
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax import config, experiment, types
from transformer_jax.evaluation import intervals
from transformer_jax.parallel import multihost, together
from transformer_jax.protocol import plan
from transformer_jax.training import failures, preemption

OUTCOME = "outcome.json"
DIVERGED = "diverged"
TOP1, LOSS = f"{plan.EVALUATOR}/top1", f"{plan.EVALUATOR}/loss"
EXAMPLES = f"{plan.EVALUATOR}/examples"


class Runner:
    """The runs of one target. `weights` is where fine-tuning starts, `origin` how those weights were made."""

    def __init__(
        self,
        folder: Path,
        name: str,
        target: plan.Target,
        *,
        weights: str,
        origin: Any,
        shared: experiment.Shared,
        stop: preemption.Stop,
    ):
        self.folder = folder / name
        self.target = target
        self.shared = shared
        self.stop = stop
        self.notes: list[str] = []
        """What a reader of the results should know about the choices."""
        self._origin = origin
        self._weights = weights

    def run(self, seeds: int) -> dict[str, dict[str, Any]]:
        """All methods of the target."""
        seeds = self.target.seeds or seeds
        results = {
            method: self.method(method, settings, grid, seeds)
            for method, (settings, grid) in self.target.methods().items()
        }
        return {**results, "probe": self.probe()} if self.target.probe_l2 else results

    def method(self, method: str, settings: Mapping[str, Any], grid: plan.Grid, seeds: int) -> dict[str, Any]:
        """Tune on the development split, pick, retrain on the full training split, judge on the test split."""
        target, choices = self.target, plan.choices(grid)
        best = choices[0]
        if len(choices) > 1:
            tuned = [self._train(method, settings, choice, None, target.train, target.dev) for choice in choices]
            best = self._pick(method, choices, tuned)
        finals = [self._train(method, settings, best, seed, target.final, target.test) for seed in range(seeds)]
        return {**summary(finals), "choice": best}

    def _pick(self, method: str, choices: Sequence[plan.Choice], tuned: Sequence[Mapping[str, Any]]) -> plan.Choice:
        """The choice of the highest `select`, of equals the one with the lower loss on the development split."""
        where = f"{self.folder.name}, {method}"
        diverged = [choice for choice, metrics in zip(choices, tuned, strict=True) if metrics.get(DIVERGED)]
        good = [(c, metrics) for c, metrics in zip(choices, tuned, strict=True) if not metrics.get(DIVERGED)]
        if diverged:
            self.notes.append(f"{where}: training diverged with {'; '.join(map(plan.label, diverged))}.")
        if not good:
            raise types.InputError(
                f"One choice of a grid must train: {where} diverged with each of"
                f" {'; '.join(map(plan.label, choices))}. Lower the rates."
            )
        best, _ = max(good, key=lambda pair: (pair[1][self.target.select], -pair[1][LOSS]))
        rates = sorted({choice[plan.RATE] for choice in choices if plan.RATE in choice})
        ends = {rates[0]: "lowest", rates[-1]: "highest"} if len(rates) > 1 else {}
        if best.get(plan.RATE) in ends:
            self.notes.append(
                f"{where}: the best rate, {best[plan.RATE]:g}, is the {ends[best[plan.RATE]]} of its grid."
            )
        return best

    def _train(
        self, method: str, settings: Mapping[str, Any], choice: plan.Choice, seed: int | None, split: str, judged: str
    ) -> dict[str, Any]:
        """One run on `split`, judged on the split `judged`: its last metrics.

        Runs with a seed are final ones and leave a checkpoint; the others tune, with seed 0, and may diverge.
        """
        self.stop.check()
        settings = config.replaced(settings, choice)
        settings |= dict(
            seed=seed or 0,
            data=dict(settings["data"], split=split),
            evals=self._evaluators(settings["evals"], judged, tuning=seed is None),
        )
        key = {"experiment": dict(settings), "pretrain": self._origin if method == "finetune" else None}
        if method == "finetune":  # where the weights are is not part of the key: the whole folder may be moved
            settings["init_from"] = dict(settings["init_from"], path=self._weights)
        run = f"tune/{plan.folder_name(choice)}" if seed is None else f"seed_{seed}"
        folder = self.folder / method / run

        def train() -> dict[str, Any]:
            try:
                return experiment.train(settings, folder, shared=self.shared, quiet=True, keep=seed is not None)
            except failures.Diverged:
                if seed is not None:
                    raise
                return {DIVERGED: True}

        return once(folder, key, train)

    def _evaluators(
        self, sections: Mapping[str, Mapping[str, Any]], judged: str, *, tuning: bool
    ) -> dict[str, Mapping[str, Any]]:
        """Those of a final run; of a tuning run no more than it is picked by: others may read the test split."""
        wanted = (plan.EVALUATOR, self.target.select.rpartition("/")[0]) if tuning else sections
        evals = {name: dict(section, predictions=True) for name, section in sections.items() if name in wanted}
        return {**evals, plan.EVALUATOR: dict(evals[plan.EVALUATOR], split=judged)}

    def probe(self) -> dict[str, Any]:
        """The linear probe: its penalty is picked on the development split, then it is fitted on the full one."""
        self.stop.check()
        target, folder = self.target, self.folder / "probe"
        splits = dict(train=target.train, dev=target.dev, final=target.final, test=target.test)
        settings = dict(target.finetune, init_from=dict(target.finetune["init_from"] or {}, path=self._weights))

        def fit() -> dict[str, float]:
            return experiment.probe(settings, splits, l2=target.probe_l2, shared=self.shared, folder=folder)

        key = {"experiment": target.finetune, "pretrain": self._origin, **splits, "l2": target.probe_l2}
        found = once(folder, key, fit)
        return {**summary([{f"{plan.EVALUATOR}/{name}": value for name, value in found.items()}]), "choice": None}


def once(folder: Path, settings: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work()` returned when it was last done in this folder with these settings; else do it and write it down.

    Of experiments among the settings only what could change their numbers has to be the same. Of several processes the
    first one looks and writes; all of them work.
    """
    file = folder / OUTCOME
    saved = together.by_first(lambda: _saved(file))
    if saved is not None:
        changes = [f"{k}: {a!r} -> {b!r}" for k, (a, b) in _changes(saved["settings"], settings).items()]
        if changes:
            raise types.InputError(
                f"A finished run keeps its settings: {folder} was made with others ({'; '.join(changes[:5])})."
                " Choose another --workdir, or remove that folder to run it again."
            )
        return saved["metrics"]
    metrics = work()
    write(file, {"settings": config.plain(settings), "metrics": metrics})
    return metrics


def _saved(file: Path) -> dict[str, Any] | None:
    if file.exists():
        return json.loads(file.read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    return None


def _changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    found = {}
    for name in sorted({*saved, *now}):
        before, after = saved.get(name), now.get(name)
        if name in ("experiment", "pretrain") and isinstance(before, Mapping) and isinstance(after, Mapping):
            inside = experiment.changes.of_outcome(before, after)
            found |= {f"{name}.{key}": pair for key, pair in inside.items()}
        else:
            found |= config.changes({name: before}, {name: after})
    return found


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single run) and the runs of the top-1 accuracy; its 95 % bootstrap
    interval over the test examples, at the mean; and under `others` the accuracies of every other evaluator."""
    found = _spread([run[TOP1] for run in runs])
    low, high = intervals.bootstrap(found["mean"], int(runs[0][EXAMPLES]))
    others = [name for name in runs[0] if _is_accuracy(name) and not name.startswith(f"{plan.EVALUATOR}/")]
    return {
        **found,
        "low": low,
        "high": high,
        "others": {name: _spread([run[name] for run in runs]) for name in others},
    }


def _is_accuracy(name: str) -> bool:
    """Whether a metric is a share of right answers that the saved predictions hold."""
    return re.fullmatch(r".+/(top1|\d+nn|\d+shot.*)", name) is not None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": spread, "runs": list(values)}


def write(file: Path, value: Any) -> None:
    """Whole or not at all, by the first process."""
    if multihost.main():
        partial = file.with_suffix(".tmp")
        partial.write_text(value if isinstance(value, str) else json.dumps(value, indent=2) + "\n")
        os.replace(partial, file)
