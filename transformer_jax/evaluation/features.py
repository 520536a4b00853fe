"""Frozen features of a split, computed once for any number of probes, and what their evaluators share."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from transformer_jax import types
from transformer_jax.evaluation import chance, outputs

_CHUNK = 4096  # rows whose numbers are looked at, at a time


class Features(NamedTuple):
    """One row an example, in the order of the split."""

    features: Float[ndarray, "examples embed"]
    labels: Int[ndarray, " examples"]


class Measured(NamedTuple):
    """The numbers of an evaluation, and by name one row an example of the test split."""

    numbers: dict[str, float]
    rows: Mapping[str, ndarray]


def extract(
    predict: outputs.Predict,
    params: Any,
    pipeline: outputs.Pipeline,
    put: outputs.Put,
    *,
    split: str = "a split",
    stop: Callable[[], bool] = lambda: False,
) -> Features | None:
    """`predict(params, batch)`, the compiled function to features, of exactly the examples. `None` when stopped.

    Raises `InputError` that names the `split` unless every feature is finite: a classifier fitted to others gives an
    accuracy that looks like one.
    """
    rows = outputs.collect(predict, params, pipeline, put, "label", stop=stop)
    if rows is None:
        return None
    found = Features(*rows)
    _require_finite(found.features, split)
    return found


def _require_finite(features: Float[ndarray, "examples embed"], split: str) -> None:
    chunks = (features[start : start + _CHUNK] for start in range(0, len(features), _CHUNK))
    bad = np.concatenate([~np.isfinite(rows).all(axis=1) for rows in chunks])
    if bad.any():
        raise types.InputError(
            f"Features must be finite: {bad.sum()} of {len(bad)} examples of {split} have NaN or infinite ones, the"
            f" first is number {int(np.argmax(bad))}. If it is most of them, training has diverged or the weights are"
            " damaged: take an earlier checkpoint. If it is few, activations overflow: raise config.model.dtype."
        )


class Judge(abc.ABC):
    """An evaluator of frozen features: both splits are read, then `measure` does the rest.

    `predict(params, batch)` is the compiled function to features, `put` brings a batch of this process onto the
    devices. `keep` is given the labels and predictions of the test split after each whole evaluation. An empty
    dictionary when `stop()` became true.
    """

    def __init__(
        self,
        name: str,
        train: outputs.Pipeline,
        test: outputs.Pipeline,
        predict: outputs.Predict,
        put: outputs.Put,
        *,
        keep: outputs.Keep | None = None,
    ):
        for pipeline in (train, test):
            outputs.require_examples(name, pipeline)
        self.name = name
        self.train = train
        self.test = test
        self._predict = predict
        self._put = put
        self._keep = keep

    def __call__(self, params: Any, *, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        splits = []
        for part, pipeline in (("training", self.train), ("test", self.test)):
            split = f"the {part} split of {self.name!r}"
            found = extract(self._predict, params, pipeline, self._put, split=split, stop=stop)
            if found is None:
                return {}
            splits.append(found)
        measured = self.measure(*splits, stop=stop)
        if measured is None:
            return {}
        if self._keep is not None:
            self._keep({"label": splits[1].labels, **measured.rows})
        return measured.numbers

    @abc.abstractmethod
    def measure(self, train: Features, test: Features, *, stop: Callable[[], bool] = lambda: False) -> Measured | None:
        """The numbers and the predictions from features that are already there. `None` when stopped."""

    def _warn(self, metric: str, accuracy: float, test: Features) -> None:
        chance.warn(f"{self.name}/{metric}", accuracy, examples=len(test.labels), labels=test.labels)
