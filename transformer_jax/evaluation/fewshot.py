"""Few-shot accuracy: a ridge classifier on frozen features, from some examples of each class (vit_protocol 2.3)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from transformer_jax import types
from transformer_jax.evaluation import chance, features, outputs, ridge

L2 = 1024.0
"""The penalty of the published numbers."""


class FewShot:
    """The evaluator: `{"5shot": mean over the seeds}` for each number of shots, `"5shot_l2_1024"` with several
    penalties.

    Every penalty is reported: to pick one is to look at the test split. An empty dictionary when `stop()` became true.
    """

    def __init__(
        self,
        name: str,
        train: outputs.Pipeline,
        test: outputs.Pipeline,
        predict: outputs.Predict,
        put: outputs.Put,
        *,
        shots: Sequence[int] = (1, 5, 10, 25),
        seeds: int = 3,
        l2: Sequence[float] = (L2,),
    ):
        for pipeline in (train, test):
            outputs.require_examples(name, pipeline)
        self.name = name
        self.train = train
        self.test = test
        self.shots = tuple(shots)
        self.seeds = seeds
        self.l2 = tuple(l2)
        self._predict = predict
        self._put = put

    def __call__(self, params: Any, *, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        splits = []
        for pipeline in (self.train, self.test):
            found = features.extract(self._predict, params, pipeline, self._put, stop=stop)
            if found is None:
                return {}
            splits.append(found)
        return self.measure(*splits, stop=stop)

    def measure(
        self, train: features.Features, test: features.Features, *, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """The numbers from features that are already there."""
        found: dict[str, float] = {}
        for shots in self.shots:
            tables = []
            for seed in range(self.seeds):
                if stop():
                    return {}
                tables.append(accuracy(train, test, shots=shots, seed=seed, l2=self.l2))
            for penalty, value in zip(self.l2, np.mean(tables, axis=0), strict=True):
                found[f"{shots}shot" if len(self.l2) == 1 else f"{shots}shot_l2_{penalty:g}"] = float(value)
        best = max(found, key=found.__getitem__)
        chance.warn(f"{self.name}/{best}", found[best], examples=len(test.labels), labels=test.labels)
        return found


def accuracy(
    train: features.Features, test: features.Features, *, shots: int | None, seed: int = 0, l2: Sequence[float] = (L2,)
) -> list[float]:
    """Accuracy on `test` for each penalty, from `shots` examples of each class of `train` (`None`: from all)."""
    rows = np.arange(len(train.labels)) if shots is None else pick(train.labels, shots=shots, seed=seed)
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    fit = ridge.Ridge(train.features[rows], train.labels[rows], classes=classes)
    return fit.accuracy(test.features, test.labels, l2)


def pick(labels: Int[np.ndarray, " examples"], *, shots: int, seed: int) -> Int[np.ndarray, " picked"]:
    """Rows of `shots` examples of each class that occurs: with one seed, fewer shots are part of more."""
    rows = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < shots:
            raise types.InputError(
                f"{shots} shots need {shots} examples of every class: class {label} has {len(own)}."
                " Take fewer shots or a larger training split."
            )
        rows.append(np.random.default_rng([seed, int(label)]).permutation(own)[:shots])
    return np.concatenate(rows)
