"""What else is done with an experiment: rehearsed, evaluated, probed."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transformer_jax import config, types
from transformer_jax.data import imagenet
from transformer_jax.evaluation import features, intervals, outputs, predictions
from transformer_jax.evaluation import probe as probes
from transformer_jax.experiment import agreement, judges, peers, weights
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import setup as setups
from transformer_jax.experiment import shared as sharing
from transformer_jax.parallel import connecting, mesh, multihost, together
from transformer_jax.training import evaluator, preemption, watchdog
from transformer_jax.transfer import convert

_RULE = "Weights are judged as they were trained"
_REMEDY = " Evaluate the model and the image size of its training, or fine-tune first."


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What weights are worth: every number of every evaluator, and by evaluator what was predicted for each example."""

    metrics: dict[str, float]
    """`{"val/top1": 0.97}`."""
    rows: dict[str, Mapping[str, np.ndarray]]
    """As `evaluation.predictions` describes them."""

    def with_intervals(self) -> dict[str, float]:
        """The numbers, beside each accuracy the ends of its 95 % bootstrap interval: `val/top1_low`, `val/top1_high`.

        Only the test examples are taken for a sample: not the shots, the seeds, or the training run.
        """
        found = {}
        for name, value in self.metrics.items():
            found[name] = value
            judge, _, metric = name.rpartition("/")
            if metric in predictions.accuracies(self.rows[judge]):
                examples = self.metrics.get(f"{judge}/examples", len(self.rows[judge]["label"]))
                found[f"{name}_low"], found[f"{name}_high"] = intervals.bootstrap(value, int(examples))
        return found


def evaluate(
    settings: Mapping[str, Any],
    path: str,
    *,
    shared: sharing.Shared | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """Every evaluator of the experiment over the weights at `path`, as `{"val/top1": 0.97}`, on every process.

    Those with `predictions` write them into `folder`, where there is one.
    """
    return judge(settings, path, shared=shared, folder=folder).metrics


def judge(
    settings: Mapping[str, Any],
    path: str,
    *,
    shared: sharing.Shared | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Judgement:
    """`evaluate`, with what was predicted for each example."""
    shared = shared or sharing.Shared()
    rows: dict[str, Mapping[str, np.ndarray]] = {}
    keep = {name: functools.partial(rows.__setitem__, name) for name in settings["evals"]}
    with preemption.listen() as stop:
        peers.require(settings, weights=path)
        program, whole, made = together.by_all(lambda: _opened(settings, path, shared, keep))
        with _watched(settings, folder, stop):
            connecting.connect(program.mesh)
            fresh = program.neutral(program.init(jax.random.key(0)).params)
            found = weights.whole(shared.weights(path), program, fresh, head=whole, rule=_RULE, remedy=_REMEDY)
            params = program.place(found)
            scores: dict[str, float] = {}
            for item in made:
                result = evaluator.judged(item, params, stop)
                scores.update({f"{item.name}/{metric}": value for metric, value in result.items()})
                if folder is not None and settings["evals"][item.name]["predictions"]:
                    predictions.write(folder, item.name, rows[item.name])
        return Judgement(scores, rows)


class _Evaluating:
    """What the watchdog looks at beside what is polled and compiled: nothing, where no step is taken."""

    phase, turns = "evaluation", 0

    def typical(self) -> tuple[int, float]:
        return 0, 0.0


def _watched(
    settings: Mapping[str, Any], folder: str | os.PathLike[str] | None, stop: preemption.Stop
) -> watchdog.Watchdog:
    """Ends an evaluation that hangs; without a `folder` the stacks go where temporary files do."""
    place = tempfile.gettempdir() if folder is None else folder
    return watchdog.Watchdog(settings["train"]["watchdog"], place, _Evaluating(), stop, process=multihost.index())


def _opened(
    settings: Mapping[str, Any], path: str, shared: sharing.Shared, keep: Mapping[str, outputs.Keep]
) -> tuple[programs.Program, bool, list[evaluator.Evaluator]]:
    """The program that judges the weights, whether their head is judged too, and the evaluators."""
    program, ours = setups.judged(settings, path, shared)
    source = shared.weights(path)
    _require_same_classes(source, ours, path)
    theirs = weights.class_names(source)
    names = theirs if ours is None or imagenet.numbered(ours) else ours
    return program, ours is not None, judges.build(settings["evals"], program, shared, class_names=names, keep=keep)


def _require_same_classes(source: convert.Source, ours: Sequence[str] | None, path: str) -> None:
    """`InputError` when the classes of the head are known to be others than those of the data, or in another order.

    Names that came with published weights are words of their own: where they differ a class is told by its place.
    """
    theirs = weights.class_names(source)
    if ours is None or theirs is None or theirs == tuple(ours) or imagenet.numbered(ours) or imagenet.numbered(theirs):
        return
    written = source.meta.get("class_names") or theirs
    if weights.trained_here(source) or sorted(ours) in (sorted(theirs), sorted(written)):
        raise types.InputError(
            f"A classifier is judged on the classes it was trained on: {path} knows {_some(theirs)}, the data has"
            f" {_some(ours)}. Name the data set it was trained on, or fine-tune it on this one first."
        )
    agreement.warn(
        f"The classes of {path}, {_some(written)}, are taken for those of the data, {_some(ours)}, one by one in their"
        " order: the names do not tell."
    )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"


def rehearse(settings: Mapping[str, Any], *, shared: sharing.Shared | None = None) -> str:
    """Build everything and run one step on fake data; returns what was built, as text. Writes nothing."""
    shared = shared or sharing.Shared()
    peers.require(settings)
    setup = together.by_all(lambda: _rehearsed(settings, shared))
    program, section = setup.program, settings["init_from"]
    connecting.connect(program.mesh)
    begun, told = program.init(jax.random.key(settings["seed"])), ""
    if section is not None:
        source, fresh = shared.weights(section["path"]), program.neutral(begun.params)
        how = {word: section[word] for word in ("head", "position", "patch")}
        told = weights.fit(source, program, fresh, classes=setup.data.class_names, **how).report.text() + "\n"
    own = setup.batch_size // mesh.readers(program.mesh).count
    batch = program.strategy.put(program.fake_batch(own, label_shape=setup.data.label_shape))
    _, metrics = program.step(begun, batch, program.strategy.scalar(setup.schedule(1)))
    loss = float(metrics["loss"])
    if not np.isfinite(loss):
        raise types.InputError(f"One step on random pixels gave a loss of {loss}: lower the learning rate.")
    return f"{config.text(setup.settings)}\n{setups.summary(setup)}\n{told}one step on fake data: loss {loss:.4f}"


def _rehearsed(settings: Mapping[str, Any], shared: sharing.Shared) -> setups.Setup:
    setup = setups.prepare(settings, shared)
    setups.evaluations(setup, shared)
    return setup


def probe(
    settings: Mapping[str, Any],
    splits: Mapping[str, str],
    *,
    l2: Sequence[float],
    shared: sharing.Shared,
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """A linear classifier on frozen features of the weights in `init_from`: `top1`, `loss`, `examples` and `l2`.

    The penalty is picked on `dev` after fitting `train`; the classifier of `final` is judged on `test`, and its
    predictions there are written into `folder`, where there is one, as those of the evaluator `eval`.
    """
    peers.require(settings)
    setup = together.by_all(lambda: setups.prepare(settings, shared))
    program, section = setup.program, settings["init_from"]
    connecting.connect(program.mesh)
    fresh = program.neutral(program.init(jax.random.key(0)).params)
    how = {word: section[word] for word in ("position", "patch")}
    found = weights.fit(shared.weights(section["path"]), program, fresh, head="reset", **how)
    params = program.place(found.params)
    read_from = {key: settings["data"][key] for key in ("source", "arguments", "data_dir")}
    judged, classes = settings["evals"]["eval"], program.model.config.num_classes

    def read(name: str) -> features.Features:
        examples = judged if name in ("dev", "test") else {**judged, **read_from}
        data = shared.eval_pipeline("eval", examples, splits[name], program)
        found = features.extract(program.features, params, data, program.strategy.put, stop=stop)
        stop.check()
        assert found is not None  # nothing is returned only when asked to stop
        return found

    with preemption.listen() as stop, _watched(settings, folder, stop):
        try:
            chosen = probes.fit(*read("train"), *read("dev"), classes=classes, l2=l2, stop=stop)
            final = probes.train(*read("final"), classes=classes, l2=chosen.l2, stop=stop)
        except probes.Stopped:
            raise preemption.Preempted from None
        test = read("test")
        multihost.barrier("after the probe", timeout=watchdog.PATIENCE)
    if folder is not None:
        predictions.write(folder, "eval", {"label": test.labels, **final.decide(*test)})
    return {**final.measure(*test), "examples": float(len(test.labels)), "l2": chosen.l2}
