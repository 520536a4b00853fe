"""Accuracy and loss over exactly the examples of a split."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.evaluation import outputs
from transformer_jax.metrics import classification, losses

_BITS = 12  # of each of three parts below a loss of 2**12: sums of up to 2**19 examples a batch fit int32
_LARGEST = 2.0**24  # a loss above it is no number any more: 2**18 of them fit int32


class Predictions(NamedTuple):
    """One row an example, in the order of the split."""

    index: Int[np.ndarray, " examples"]
    """Where in the split the example stands: bad images that were skipped have no row."""
    label: Int[np.ndarray, " examples"]
    predicted: Int[np.ndarray, " examples"]
    """-1 where a logit is no number, which is never right."""
    probability: Float[np.ndarray, " examples"]
    """Of the predicted class."""
    loss: Float[np.ndarray, " examples"]


class Classification:
    """The evaluator: `top1`, `top5` (of at least five classes), `loss` and `examples`.

    `predict(params, batch)` is the compiled function to logits, `put` brings a batch of this process onto the devices.
    Sums stay on the devices until the end. They are integers, the loss in fixed point, so the numbers do not depend on
    the batch size or the devices. An empty dictionary when `stop()` became true.

    `columns` are the logits that stand for the classes of the data, where those are some of the model's: the others are
    left out before anything is computed. `keep` is given the `Predictions`, as a dictionary, of each whole evaluation.
    """

    def __init__(
        self,
        name: str,
        pipeline: outputs.Pipeline,
        predict: Callable[[Any, Any], Array],
        put: Callable[[Mapping[str, Any]], Any],
        *,
        loss: str = "softmax",
        columns: Int[np.ndarray, " classes"] | None = None,
        keep: outputs.Keep | None = None,
    ):
        outputs.require_examples(name, pipeline)
        self.name = name
        self.pipeline = pipeline
        self._predict = predict
        self._put = put
        self.classes = None if columns is None else len(columns)
        """How many are chosen among, where it is not all that the model has."""
        self._loss = loss
        self._choose = jax.jit(lambda logits: logits if columns is None else logits[:, columns])
        self._keep = keep

    def __call__(self, params: Any, *, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        totals, rows = None, outputs.Rows()
        for batch, logits in outputs.run(self._predict, params, self.pipeline, self._put, stop=stop):
            logits = self._choose(logits)
            found = _tally(logits, batch["label"], batch["mask"], loss=self._loss)
            totals = found if totals is None else _merge(totals, found)
            if self._keep is not None:
                rows.add(batch, _decide(logits, batch["label"], loss=self._loss))
        if stop() or totals is None:
            return {}
        sums = jax.device_get(totals)
        count = int(sums["count"])
        outputs.require_all(self.name, self.pipeline, count)
        if self._keep is not None:
            index, decided = rows.done()
            self._keep(Predictions(index, *decided)._asdict())
        hits = {name: int(sums[name]) / count for name in ("top1", "top5") if name in sums}
        return {**hits, "loss": _exact(sums["loss"], int(sums["bad"])) / count, "examples": float(count)}


def _exact(parts: Int[np.ndarray, "4"], bad: int) -> float:
    """The sum that the integer parts of `_tally` stand for; NaN when a loss was not finite."""
    high, whole, first, second = (int(part) for part in parts)
    return float("nan") if bad else high * 2**_BITS + whole + (first + second / 2**_BITS) / 2**_BITS


@functools.partial(jax.jit, static_argnames="loss")
def _tally(
    logits: Float[Array, "batch classes"], label: Int[Array, " batch"], mask: Bool[Array, " batch"], *, loss: str
) -> dict[str, Array]:
    each = losses.LOSSES[loss](logits, label)
    found = classification.counts(logits, label, ks=(1, 5) if logits.shape[-1] >= 5 else (1,), mask=mask)
    finite = jnp.isfinite(each) & (each <= _LARGEST)
    kept = jnp.where(mask & finite, jnp.maximum(each, 0.0), 0.0)  # none is below 0 but by rounding
    high = jnp.floor(kept / 2.0**_BITS)
    whole = jnp.floor(kept - high * 2.0**_BITS)
    fraction = jnp.round((kept - jnp.floor(kept)) * 2.0 ** (2 * _BITS)).astype(jnp.int32)
    parts = jnp.stack([high.astype(jnp.int32), whole.astype(jnp.int32), fraction >> _BITS, fraction & (2**_BITS - 1)])
    return {**found, "loss": _carry(parts.sum(axis=1)), "bad": (mask & ~finite).sum(dtype=jnp.int32)}


@jax.jit
def _merge(left: dict[str, Array], right: dict[str, Array]) -> dict[str, Array]:
    total = jax.tree.map(jnp.add, left, right)
    return {**total, "loss": _carry(total["loss"])}


def _carry(parts: Int[Array, "4"]) -> Int[Array, "4"]:
    """The same number with its low parts below 2**_BITS again."""
    high, whole, first, second = parts
    first = first + (second >> _BITS)
    whole = whole + (first >> _BITS)
    low = 2**_BITS - 1
    return jnp.stack([high + (whole >> _BITS), whole & low, first & low, second & low])


@functools.partial(jax.jit, static_argnames="loss")
def _decide(
    logits: Float[Array, "batch classes"], label: Int[Array, " batch"], *, loss: str
) -> tuple[Int[Array, " batch"], Int[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """Label, predicted class, its probability and the loss of each example."""
    logits = logits.astype(jnp.float32)
    probability = jax.nn.sigmoid(logits) if loss == "sigmoid" else jax.nn.softmax(logits, axis=-1)
    return label, classification.predicted(logits), probability.max(axis=-1), losses.LOSSES[loss](logits, label)
