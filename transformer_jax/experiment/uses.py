"""What else is done with an experiment: rehearsed, evaluated, probed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transformer_jax import config, types
from transformer_jax.evaluation import features, linear
from transformer_jax.experiment import setup as setups
from transformer_jax.experiment import shared as sharing
from transformer_jax.experiment import weights
from transformer_jax.training import preemption


def evaluate(settings: Mapping[str, Any], path: str, *, shared: sharing.Shared | None = None) -> dict[str, float]:
    """Every evaluator of the experiment over the weights at `path`, as `{"val/top1": 0.97}`."""
    shared = shared or sharing.Shared()
    setup = setups.prepare(dict(settings, init_from=None), shared)
    if not setup.settings["evals"]:
        raise types.InputError("There must be something to evaluate: config.evals is empty.")
    program = setup.program
    fresh = program.neutral(program.init(jax.random.key(0)).params)
    found = weights.fit(shared.weights(path), program, fresh, head="keep")
    params = program.place(found.params)
    scores: dict[str, float] = {}
    with preemption.listen() as stop:
        for item in setups.evaluations(setup, shared):
            result = item.evaluator(params, stop=stop)
            stop.check()
            scores.update({f"{item.evaluator.name}/{metric}": value for metric, value in result.items()})
    return scores


def rehearse(settings: Mapping[str, Any], *, shared: sharing.Shared | None = None) -> str:
    """Build everything and run one step on fake data; returns what was built, as text. Writes nothing."""
    setup = setups.prepare(settings, shared or sharing.Shared())
    program = setup.program
    begun = program.init(jax.random.key(settings["seed"]))
    batch = program.jit.put(program.fake_batch(setup.batch_size))
    _, metrics = program.step(begun, batch, program.jit.scalar(setup.schedule(1)))
    loss = float(metrics["loss"])
    if not np.isfinite(loss):
        raise types.InputError(f"One step on random pixels gave a loss of {loss}: lower the learning rate.")
    return f"{config.text(settings)}\n{setups.summary(setup)}\none step on fake data: loss {loss:.4f}"


def probe(
    settings: Mapping[str, Any], splits: Mapping[str, str], *, l2: Sequence[float], shared: sharing.Shared
) -> dict[str, float]:
    """A linear classifier on frozen features of the weights in `init_from`.

    The penalty is picked on `dev` after fitting `train`; the classifier of `final` is judged on `test`.
    """
    setup = setups.prepare(settings, shared)
    program, section = setup.program, settings["init_from"]
    fresh = program.neutral(program.init(jax.random.key(0)).params)
    found = weights.fit(shared.weights(section["path"]), program, fresh, head="reset", position=section["position"])
    params = program.place(found.params)
    judged = settings["evals"]["eval"]

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        data = shared.eval_pipeline(judged, splits[name])
        return features.extract(program.features, params, data, program.jit.put)

    return linear.probe({name: read(name) for name in splits}, l2=l2)
