"""The linear probe: softmax regression on frozen features, its penalty chosen on a held-out split.

Convex and fitted to all examples at once, so it has no learning rate, no seed and no early stopping: features go in,
one number comes out.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.special
import threadpoolctl
from jaxtyping import Float, Int

from transformer_jax import types
from transformer_jax.evaluation import ridge

_SMALL = 1 << 26  # multiplications; below that, threads of the linear algebra wait more than they work
_POLLS = 20
"""How often a fit asks whether to stop: as often on every process, however many iterations each needs."""
_NUMBERS = 1 << 19
"""Of a matrix of examples that is in memory at a time, in float64."""
_KEPT = 1 << 27
"""Standardised features up to so many are kept, in float64; more are standardised anew in every iteration."""
L2 = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier of standardised features."""

    scaling: ridge.Scaling
    kernel: Float[np.ndarray, "embed classes"]
    bias: Float[np.ndarray, " classes"]

    def logits(self, features: Float[np.ndarray, "examples embed"]) -> Float[np.ndarray, "examples classes"]:
        """Scores, in float64."""
        return self.scaling(features) @ self.kernel + self.bias

    def decide(
        self, features: Float[np.ndarray, "examples embed"], labels: Int[np.ndarray, " examples"]
    ) -> dict[str, np.ndarray]:
        """The `predicted` class of each example, its `probability`, and the `loss`."""
        predicted, probability = np.empty(len(labels), np.int32), np.empty(len(labels), np.float32)
        loss = np.empty(len(labels), np.float32)
        for chunk in _chunks(len(labels), max(self.kernel.shape)):
            logits = self.logits(features[chunk])
            total, rows = scipy.special.logsumexp(logits, axis=1), np.arange(len(logits))
            predicted[chunk] = logits.argmax(axis=1)
            probability[chunk] = np.exp(logits[rows, predicted[chunk]] - total)
            loss[chunk] = total - logits[rows, labels[chunk]]
        return {"predicted": predicted, "probability": probability, "loss": loss}

    def measure(
        self, features: Float[np.ndarray, "examples embed"], labels: Int[np.ndarray, " examples"]
    ) -> dict[str, float]:
        """`top1` and mean `loss`."""
        found = self.decide(features, labels)
        top1, loss = (found["predicted"] == labels).mean(), found["loss"].mean(dtype=np.float64)
        return {"top1": float(top1), "loss": float(loss)}


class Stopped(Exception):
    """A fit was asked to stop: there is nothing to return."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """The penalty that was best on the held-out split, its probe, and what every penalty scored there."""

    l2: float
    probe: Probe
    scores: Mapping[float, Mapping[str, float]]


def fit(
    features: Float[np.ndarray, "examples embed"],
    labels: Int[np.ndarray, " examples"],
    dev_features: Float[np.ndarray, "dev embed"],
    dev_labels: Int[np.ndarray, " dev"],
    *,
    classes: int,
    l2: Sequence[float] = L2,
    iterations: int = 1000,
    stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """A probe for each penalty, strongest first, each starting from the one before; the most accurate on the held-out
    split, on a tie the one of lower loss. Raises `Stopped` when asked to stop."""
    probes, scores = {}, {}
    start = None
    for penalty in sorted(l2, reverse=True):
        start = train(features, labels, classes=classes, l2=penalty, start=start, iterations=iterations, stop=stop)
        probes[penalty], scores[penalty] = start, start.measure(dev_features, dev_labels)
    best = max(scores, key=lambda penalty: (scores[penalty]["top1"], -scores[penalty]["loss"]))
    return Fit(best, probes[best], scores)


def train(
    features: Float[np.ndarray, "examples embed"],
    labels: Int[np.ndarray, " examples"],
    *,
    classes: int,
    l2: float,
    start: Probe | None = None,
    iterations: int = 1000,
    stop: Callable[[], bool] = lambda: False,
) -> Probe:
    """The minimum of `mean cross-entropy + l2 / 2 |kernel|^2` by L-BFGS, features standardised, the bias free.

    Raises `Stopped` when `stop()` became true; it is called as often on every process.
    """
    if len(labels) == 0 or not 0 <= labels.min() <= labels.max() < classes:
        raise types.InputError(f"A probe needs labels from 0 to {classes - 1}: it got {_extent(labels)}.")
    scaling = ridge.Scaling.of(features)
    objective = _Objective(scaling, features, labels, classes=classes, l2=l2)
    at = np.zeros(objective.shape) if start is None else np.concatenate([start.kernel, start.bias[None]])
    options = {"maxiter": iterations, "gtol": 1e-6, "ftol": 1e-12}
    with threadpoolctl.threadpool_limits(1 if features.size * classes < _SMALL else None):
        with _asking(stop, iterations) as ask:
            found = scipy.optimize.minimize(
                objective, at.ravel(), jac=True, method="L-BFGS-B", options=options, callback=ask
            )
    kernel, bias = np.split(found.x.reshape(objective.shape), [-1])
    return Probe(scaling, kernel, bias[0])


@contextlib.contextmanager
def _asking(stop: Callable[[], bool], iterations: int) -> Generator[Callable[[np.ndarray], None], None, None]:
    """What is called after every iteration, and now and then asks. Whoever needs fewer asks the rest at the end: the
    processes of a run count how often they were asked, and machines that round otherwise need not iterate alike."""
    left, every, taken = _POLLS, -(-iterations // _POLLS) or 1, itertools.count(1)

    def ask(_: np.ndarray) -> None:
        nonlocal left
        if next(taken) % every == 0 and left:
            left -= 1
            if stop():
                raise Stopped

    yield ask
    while left:
        left -= 1
        if stop():
            raise Stopped


class _Objective:
    """The penalised loss and its gradient, summed over chunks of examples: logits of all never exist at a time."""

    def __init__(self, scaling: ridge.Scaling, features: np.ndarray, labels: np.ndarray, *, classes: int, l2: float):
        self.shape = (features.shape[1] + 1, classes)
        self._features, self._labels, self._scaling, self._l2 = features, labels, scaling, l2
        self._chunks = _chunks(len(labels), max(self.shape))
        kept = features.size <= _KEPT
        self._inputs = [scaling(features[chunk]) for chunk in self._chunks] if kept else None

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = np.split(flat.reshape(self.shape), [-1])
        loss, gradient = 0.0, np.zeros(self.shape)
        for number, chunk in enumerate(self._chunks):
            inputs = self._scaling(self._features[chunk]) if self._inputs is None else self._inputs[number]
            logits, labels, rows = inputs @ kernel, self._labels[chunk], np.arange(len(inputs))
            logits += bias
            logits -= logits.max(axis=1, keepdims=True)
            loss -= logits[rows, labels].sum()
            error = np.exp(logits, out=logits)
            total = error.sum(axis=1, keepdims=True)
            loss += np.log(total).sum()
            error /= total
            error[rows, labels] -= 1.0
            gradient[:-1] += inputs.T @ error
            gradient[-1] += error.sum(axis=0)
        gradient /= len(self._labels)
        gradient[:-1] += self._l2 * kernel
        return float(loss / len(self._labels) + self._l2 / 2 * np.vdot(kernel, kernel)), gradient.ravel()


def _chunks(rows: int, width: int) -> list[slice]:
    """Slices of so many rows that a matrix of this width stays below `_NUMBERS`."""
    step = max(1, _NUMBERS // width)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _extent(labels: np.ndarray) -> str:
    return f"{labels.min()} to {labels.max()}" if len(labels) else "none"
