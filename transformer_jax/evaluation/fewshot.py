"""Few-shot accuracy: a ridge classifier on frozen features, from some examples of each class (vit_protocol 2.3)."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from transformer_jax import types
from transformer_jax.evaluation import features, outputs, ridge

L2 = 1024.0
"""The penalty of the published numbers."""
_log = logging.getLogger(__name__)


class FewShot(features.Judge):
    """The evaluator: `{"5shot": mean over the seeds}` for each number of shots, `"5shot_l2_1024"` with several
    penalties.

    Every penalty is reported: to pick one is to look at the test split.
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
        keep: outputs.Keep | None = None,
    ):
        super().__init__(name, train, test, predict, put, keep=keep)
        self.shots = tuple(shots)
        self.seeds = seeds
        self.l2 = tuple(l2)

    def measure(
        self, train: features.Features, test: features.Features, *, stop: Callable[[], bool] = lambda: False
    ) -> features.Measured | None:
        numbers: dict[str, float] = {}
        rows: dict[str, np.ndarray] = {}
        for shots in self.shots:
            _warn_of_small_classes(self.name, train.labels, shots)
            names = [f"{shots}shot" if len(self.l2) == 1 else f"{shots}shot_l2_{penalty:g}" for penalty in self.l2]
            tables = []
            for seed in range(self.seeds):
                if stop():
                    return None
                found = predict(train, test, shots=shots, seed=seed, l2=self.l2)
                tables.append((found == test.labels).mean(axis=1))
                rows.update({f"predicted_{name}_seed{seed}": each for name, each in zip(names, found, strict=True)})
            numbers.update(zip(names, np.mean(tables, axis=0).tolist(), strict=True))
        best = max(numbers, key=numbers.__getitem__)
        self._warn(best, numbers[best], test)
        return features.Measured(numbers, rows)


def accuracy(
    train: features.Features, test: features.Features, *, shots: int | None, seed: int = 0, l2: Sequence[float] = (L2,)
) -> list[float]:
    """Accuracy on `test` for each penalty, from `shots` examples of each class of `train` (`None`: from all)."""
    found = predict(train, test, shots=shots, seed=seed, l2=l2)
    return (found == test.labels).mean(axis=1).tolist()


def predict(
    train: features.Features, test: features.Features, *, shots: int | None, seed: int = 0, l2: Sequence[float] = (L2,)
) -> Int[np.ndarray, "penalties examples"]:
    """The class that the ridge classifier gives each example of `test`, for each penalty."""
    rows = np.arange(len(train.labels)) if shots is None else pick(train.labels, shots=shots, seed=seed)
    classes = int(max(np.max(train.labels), np.max(test.labels))) + 1
    fit = ridge.Ridge(train.features[rows], train.labels[rows], classes=classes)
    return fit.predict(test.features, l2)


def pick(labels: Int[np.ndarray, " examples"], *, shots: int, seed: int) -> Int[np.ndarray, " picked"]:
    """Rows of `shots` examples of each class: with one seed, fewer shots are part of more.

    They are the rows that big_vision picks from the same order of examples, and as there a class that has fewer gives
    all it has. Raises `InputError` when no class has so many: then more shots are no more examples.
    """
    counts = np.bincount(labels)
    if np.max(counts) < shots:
        raise types.InputError(
            f"{shots} shots need a class with {shots} examples: the largest has {np.max(counts)}."
            " Take fewer shots or a larger training split."
        )
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in range(len(counts))])


def _warn_of_small_classes(name: str, labels: np.ndarray, shots: int) -> None:
    counts = np.bincount(labels)
    small = np.flatnonzero((counts > 0) & (counts < shots))
    if len(small):
        _log.warning(
            "%s: %d classes have fewer than %d examples (class %d has %d): they give all they have.",
            name,
            len(small),
            shots,
            small[0],
            counts[small[0]],
        )
