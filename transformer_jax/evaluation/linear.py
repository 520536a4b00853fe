"""The linear probe as an evaluator: its penalty is picked on a part of the training features that is set aside."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from transformer_jax import types
from transformer_jax.evaluation import features, outputs, probe

HELD_OUT = 0.1


class Linear(features.Judge):
    """The evaluator: `top1`, `loss`, the penalty `l2` that was picked, and `examples`.

    `held_out` of each class of the training split is set aside. Every penalty is fitted to the rest and judged there,
    the best one is then fitted to all of the training split, and the test split is read once.
    """

    def __init__(
        self,
        name: str,
        train: outputs.Pipeline,
        test: outputs.Pipeline,
        predict: outputs.Predict,
        put: outputs.Put,
        *,
        l2: Sequence[float] = probe.L2,
        held_out: float = HELD_OUT,
        keep: outputs.Keep | None = None,
    ):
        super().__init__(name, train, test, predict, put, keep=keep)
        self.l2 = tuple(l2)
        self.held_out = held_out

    def measure(
        self, train: features.Features, test: features.Features, *, stop: Callable[[], bool] = lambda: False
    ) -> features.Measured | None:
        classes = int(max(np.max(train.labels), np.max(test.labels))) + 1
        dev = set_aside(train.labels, self.held_out)
        kept, judged = (features.Features(train.features[rows], train.labels[rows]) for rows in (~dev, dev))
        try:
            chosen = probe.fit(*kept, *judged, classes=classes, l2=self.l2, stop=stop)
            final = probe.train(*train, classes=classes, l2=chosen.l2, start=chosen.probe, stop=stop)
        except probe.Stopped:
            return None
        found = final.decide(*test)
        top1, loss = (found["predicted"] == test.labels).mean(), found["loss"].mean(dtype=np.float64)
        numbers = {"top1": float(top1), "loss": float(loss)}
        self._warn("top1", numbers["top1"], test)
        return features.Measured({**numbers, "l2": chosen.l2, "examples": float(len(test.labels))}, found)


def set_aside(labels: Int[np.ndarray, " examples"], share: float) -> Bool[np.ndarray, " examples"]:
    """Which examples are held out: that share of each class that has two or more, at least one and never all of it.

    The same ones whenever the labels are the same.
    """
    aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        aside[np.random.default_rng([0, int(label)]).permutation(own)[:count]] = True
    if not aside.any():
        raise types.InputError(
            "A penalty is picked on held-out examples: every class of the training split has one example only."
            " Take a larger training split."
        )
    return aside
