"""The composition root: a resolved experiment becomes data, model, optimizer, step and evaluators.

`resolve` checks an experiment file; `train`, `evaluate`, `probe` and `rehearse` run it; `Shared` is what several runs
of one process have in common. `Predictor` is a checkpoint as a function, `expects` what weights want of a model that
starts from them. `changes` tells finished and running experiments from others.
"""

from transformer_jax.experiment import changes
from transformer_jax.experiment.predictor import Predictor, expects
from transformer_jax.experiment.run import train
from transformer_jax.experiment.sections import resolve, schema
from transformer_jax.experiment.setup import prepare, without_data
from transformer_jax.experiment.shared import Shared, missing, preflight
from transformer_jax.experiment.uses import Judgement, evaluate, judge, probe, rehearse

__all__ = [
    "Judgement",
    "Predictor",
    "Shared",
    "changes",
    "evaluate",
    "expects",
    "judge",
    "missing",
    "preflight",
    "prepare",
    "probe",
    "rehearse",
    "resolve",
    "schema",
    "train",
    "without_data",
]
