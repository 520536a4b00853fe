"""k-nearest neighbours on frozen features: what they are worth without fitting anything.

Features are scaled to length 1. An example is compared with all training examples, and each of its k nearest votes for
its own class with the weight `exp(cosine / 0.07)`: the weighted vote that DINO (2104.14294, section 4.1) took from
Wu et al. (1805.01978). A plain majority is the same vote at a very high temperature.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer_jax import types
from transformer_jax.evaluation import features, outputs

TEMPERATURE = 0.07
_PRODUCTS = 1 << 26
"""Similarities that are in memory at a time, in float32."""
_ROWS = 4096  # of the test split at a time, however few the training examples


class Neighbours(features.Judge):
    """The evaluator: `{"10nn": accuracy}` for each k."""

    def __init__(
        self,
        name: str,
        train: outputs.Pipeline,
        test: outputs.Pipeline,
        predict: outputs.Predict,
        put: outputs.Put,
        *,
        k: Sequence[int] = (10, 20),
        temperature: float = TEMPERATURE,
        keep: outputs.Keep | None = None,
    ):
        super().__init__(name, train, test, predict, put, keep=keep)
        self.k = tuple(k)
        self.temperature = temperature
        if train.num_examples < max(self.k):
            raise types.InputError(
                f"{max(self.k)} nearest neighbours need as many examples: the training split of {name!r} has"
                f" {train.num_examples}. Lower config.evals.{name}.k."
            )

    def measure(
        self, train: features.Features, test: features.Features, *, stop: Callable[[], bool] = lambda: False
    ) -> features.Measured | None:
        found = predict(train, test.features, k=self.k, temperature=self.temperature, stop=stop)
        if found is None:
            return None
        numbers = {f"{k}nn": float((found[k] == test.labels).mean()) for k in self.k}
        best = max(numbers, key=numbers.__getitem__)
        self._warn(best, numbers[best], test)
        return features.Measured(numbers, {f"predicted_{k}nn": found[k] for k in self.k})


def predict(
    train: features.Features,
    test: Float[np.ndarray, "examples embed"],
    *,
    k: Sequence[int],
    temperature: float = TEMPERATURE,
    stop: Callable[[], bool] = lambda: False,
) -> dict[int, Int[np.ndarray, " examples"]] | None:
    """The class that the k nearest of `train` vote for, for each k; among equals the lowest. `None` when stopped."""
    known, labels = jax.device_put(_normalised(train.features)), train.labels
    classes, chunk = int(np.max(labels)) + 1, min(max(1, _PRODUCTS // len(labels)), _ROWS)
    found: dict[int, list[np.ndarray]] = {size: [] for size in k}
    for start in range(0, len(test), chunk):
        if stop():
            return None
        cosine, near = nearest(jax.device_put(_normalised(test[start : start + chunk])), known, k=max(k))
        # The largest weight is 1: no temperature overflows.
        weight = np.exp((cosine.astype(np.float64) - cosine[:, :1]) / temperature)
        for size, parts in found.items():
            votes = np.zeros((len(near), classes))
            np.add.at(votes, (np.arange(len(near))[:, None], labels[near[:, :size]]), weight[:, :size])
            parts.append(votes.argmax(axis=1).astype(np.int32))
    return {size: np.concatenate(parts) for size, parts in found.items()}


def nearest(
    test: Float[Array, "rows embed"], known: Float[Array, "examples embed"], *, k: int
) -> tuple[Float[np.ndarray, "rows k"], Int[np.ndarray, "rows k"]]:
    """The k largest products with `known`, largest first, and their rows there; among equals the lowest row first."""
    return jax.device_get(_nearest(test, known, k))


def _products(test: Float[Array, "rows embed"], known: Float[Array, "examples embed"], k: int) -> tuple[Array, Array]:
    return tuple(jax.lax.top_k(jnp.matmul(test, known.T, precision="highest"), k))


_nearest = jax.jit(_products, static_argnums=2)


def _normalised(features: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows embed"]:
    """Scaled to length 1, in float32; a feature of zeros stays one."""
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-12))
