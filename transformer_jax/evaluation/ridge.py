"""Ridge regression onto one-against-rest targets in closed form: every penalty from one eigendecomposition.

With standardised features and a constant one, `w = (X'X + l2 I)^-1 X'Y`, Y in {-1, +1} (vit_protocol 2.3; big_vision
evaluates few-shot accuracy so). `X'X = V diag(s) V'` is decomposed once, and each penalty only rescales its
eigenvalues; with fewer examples than features the same is done with `XX'`. Y is never built: `X'Y` is twice the sum
over each class minus the sum over all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BIAS = 100.0
"""The constant feature: so large that the penalty hardly reaches its weight."""
_CHUNK = 4096  # rows in float64 at a time


class Scaling(NamedTuple):
    """Mean and reach of the training features."""

    mean: Float[np.ndarray, " embed"]
    scale: Float[np.ndarray, " embed"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "examples embed"]) -> "Scaling":
        """The statistics of these features; a constant feature becomes 0."""
        mean = features.mean(axis=0, dtype=np.float64)
        variance = np.zeros_like(mean)
        for rows in _chunks(features):
            variance += np.square(rows.astype(np.float64) - mean).sum(axis=0)
        return cls(mean, np.sqrt(variance / len(features)) + 1e-5)

    def __call__(self, features: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows embed"]:
        """Standardised, in float64."""
        return (features.astype(np.float64) - self.mean) / self.scale


class Ridge:
    """A fit to features and labels, ready for any penalty."""

    def __init__(
        self, features: Float[np.ndarray, "examples embed"], labels: Int[np.ndarray, " examples"], *, classes: int
    ):
        self.scaling = Scaling.of(features)
        if len(features) <= features.shape[1]:
            self._fit_dual(features, labels, classes)
        else:
            self._fit_primal(features, labels, classes)

    def weights(self, l2: float) -> Float[np.ndarray, "inputs classes"]:
        """The weights of the standardised features, then of the constant one."""
        return self._left @ (self._right / (self._eigenvalues + l2)[:, None])

    def predict(
        self, features: Float[np.ndarray, "examples embed"], l2: Sequence[float]
    ) -> Int[np.ndarray, "penalties examples"]:
        """The class that scores highest, for each penalty."""
        # Scores need no more than the precision of the features; half the memory and twice the speed.
        weights = [self.weights(penalty).astype(np.float32) for penalty in l2]
        found = np.empty((len(weights), len(features)), np.int32)
        for start in range(0, len(features), _CHUNK):
            rows = self._inputs(features[start : start + _CHUNK]).astype(np.float32)
            for number, each in enumerate(weights):
                found[number, start : start + _CHUNK] = (rows @ each).argmax(axis=1)
        return found

    def _inputs(self, features: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows inputs"]:
        return np.concatenate([self.scaling(features), np.full((len(features), 1), BIAS)], axis=1)

    def _fit_primal(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        size = features.shape[1] + 1
        gram, sums = np.zeros((size, size)), np.zeros((classes, size))
        for start in range(0, len(features), _CHUNK):
            rows = self._inputs(features[start : start + _CHUNK])
            gram += rows.T @ rows
            _add_by_class(sums, rows, labels[start : start + _CHUNK])
        self._eigenvalues, self._left = _eigh(gram)
        self._right = self._left.T @ (2 * sums - sums.sum(axis=0)).T

    def _fit_dual(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        rows = self._inputs(features)
        self._eigenvalues, vectors = _eigh(rows @ rows.T)
        self._left = rows.T @ vectors
        targets = np.full((len(rows), classes), -1.0)
        targets[np.arange(len(rows)), labels] = 1.0
        self._right = vectors.T @ targets


def _eigh(gram: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    values, vectors = np.linalg.eigh(gram)
    return values.clip(min=0.0), vectors  # rounding makes zeros slightly negative


def _add_by_class(sums: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums[present] += np.add.reduceat(rows[order], starts, axis=0)


def _chunks(features: np.ndarray) -> list[np.ndarray]:
    return [features[start : start + _CHUNK] for start in range(0, len(features), _CHUNK)]
