"""Frozen features of a split, computed once for any number of probes, and what their evaluators share."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from numpy import ndarray

from transformer_jax.evaluation import chance, outputs


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
    stop: Callable[[], bool] = lambda: False,
) -> Features | None:
    """`predict(params, batch)`, the compiled function to features, of exactly the examples. `None` when stopped."""
    rows = outputs.collect(predict, params, pipeline, put, "label", stop=stop)
    return None if rows is None else Features(*rows)


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
        for pipeline in (self.train, self.test):
            found = extract(self._predict, params, pipeline, self._put, stop=stop)
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
