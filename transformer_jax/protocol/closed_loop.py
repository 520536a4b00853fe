"""The closed loop of the ViT paper: pretrain, tune on a development split, retrain with seeds, compare.

For every target, each choice of its grid is tried on the development split; the best one is retrained on the full
training split with several seeds, and the test split is read once a seed. Beside fine-tuning may stand training from
scratch with a grid of its own, and a linear probe on the frozen features. (2010.11929 section 4.1, table 4.)
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from transformer_jax import experiment
from transformer_jax.experiment import peers
from transformer_jax.parallel import multihost, together
from transformer_jax.protocol import page, plan, runner
from transformer_jax.training import preemption
from transformer_jax.transfer import convert

Results = dict[str, Any]
"""`{"targets": {target: {method: {"mean", "std", "runs", "low", "high", "choice", "others"}}}, "pretrained": {metric:
value}, "groups": {group: {method: mean}}}`, accuracies in 0..1."""


def run(settings: Mapping[str, Any], workdir: str | os.PathLike[str]) -> Results:
    """Everything that is not yet done, then `results.json`, `results.md` and `report.html`.

    Each run has its own directory and leaves an `outcome.json`; one that is there is not run again.
    """
    folder = Path(workdir).expanduser()
    together.by_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    shared = experiment.Shared()
    with preemption.listen() as stop:
        peers.require(settings)
        labels = together.by_all(lambda: _open_everything(settings, shared))
        weights = _pretrain(settings, folder, shared)
        origin = settings["pretrain"] or settings["weights"]
        results: Results = {"targets": {}, "pretrained": _judge(settings, weights, folder, shared, stop), "groups": {}}
        notes: list[str] = []
        for name in sorted(settings["targets"], key=lambda name: labels[name]):
            target = plan.Target(**settings["targets"][name])
            runs = runner.Runner(folder, name, target, weights=weights, origin=origin, shared=shared, stop=stop)
            results["targets"][name] = runs.run(settings["seeds"])
            results["groups"] = groups(results["targets"], settings["groups"])
            runner.write(folder / "results.json", results)
            if multihost.main():
                print("\n".join([f"{name}: {_line(results['targets'][name])}", *runs.notes]), flush=True)
            notes += runs.notes
    runner.write(folder / "results.md", "\n".join([page.table(results), *(f"- {note}" for note in notes), ""]))
    if multihost.main():
        one_set = len({target["finetune"]["data"]["source"] for target in settings["targets"].values()}) == 1
        several = one_set and len(set(labels.values())) > 1
        page.write(folder, settings["name"], results, labels, notes, compare_labels=several)
    return results


def groups(
    targets: Mapping[str, Mapping[str, Any]], members: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """The mean accuracy of each group, and of all targets as soon as there are groups; of methods all of them have.

    The mean over all is that of the targets, not of the groups (VTAB, 1910.04867).
    """
    if not members:
        return {}
    found = {}
    for name, wanted in {**members, plan.ALL: list(targets)}.items():
        done = [targets[target] for target in wanted if target in targets]
        if len(done) == len(wanted):
            methods = [method for method in page.METHODS if all(method in result for result in done)]
            found[name] = {m: statistics.fmean(result[m]["mean"] for result in done) for m in methods}
    return found


def _line(methods: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{method} {100 * result['mean']:.1f} %" for method, result in methods.items())


def _pretrain(settings: Mapping[str, Any], folder: Path, shared: experiment.Shared) -> str:
    """Where the pretrained weights are, after pretraining if that is to be done here."""
    pretrain, place = settings["pretrain"], folder / "pretrain"
    if pretrain is None:
        return settings["weights"]
    runner.once(place, {"experiment": pretrain}, lambda: experiment.train(pretrain, place, shared=shared))
    return str(place)


def _judge(
    settings: Mapping[str, Any], weights: str, folder: Path, shared: experiment.Shared, stop: preemption.Stop
) -> dict[str, float]:
    """What the evaluators of the protocol say of the pretrained weights."""
    if not settings["evals"]:
        return {}
    stop.check()
    place, like = folder / "pretrained", settings["pretrain"]
    evals = {name: dict(section, predictions=True) for name, section in settings["evals"].items()}
    if like is None:  # the weights say what model they are of
        first = next(iter(settings["targets"].values()))["finetune"]
        model = convert.model_of(shared.weights(weights))
        like = experiment.resolve(ml_collections.ConfigDict(dict(first, model=model, init_from=None, evals=evals)))
    key = {"evals": evals, "pretrain": settings["pretrain"] or settings["weights"]}
    judged = dict(like, evals=evals)
    return runner.once(place, key, lambda: experiment.evaluate(judged, weights, shared=shared, folder=place))


def _open_everything(settings: Mapping[str, Any], shared: experiment.Shared) -> dict[str, int]:
    """Every split of every target is opened, and every experiment put together, before the first step of the first.

    Returns the number of labelled examples of each target's final split.
    """
    targets = {name: plan.Target(**target) for name, target in settings["targets"].items()}
    problems = experiment.missing(settings["pretrain"]) if settings["pretrain"] is not None else []
    if settings["evals"]:
        first = next(iter(targets.values())).finetune
        problems += experiment.missing(dict(first, evals=settings["evals"], init_from=None), train=False)
    for target in targets.values():
        for experiment_settings, _ in target.methods().values():
            weights = dict(path=settings["weights"]) if settings["weights"] is not None else None
            problems += experiment.missing(dict(experiment_settings, init_from=weights))
    experiment.preflight(problems)
    labels = {}
    for name, target in targets.items():
        for method, _ in target.methods().values():
            setup = experiment.prepare(dict(method, init_from=None), shared)
            judge = setup.settings["evals"][plan.EVALUATOR]
            for split in (target.dev, target.test):
                shared.eval_pipeline(plan.EVALUATOR, judge, split, setup.program)
        labels[name] = len(shared.source(target.finetune["data"], target.final))
        shared.source(target.finetune["data"], target.train)
    return labels
