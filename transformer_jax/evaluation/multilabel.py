"""Accuracy where an example has any number of right labels, as in ImageNet ReaL (2006.07159).

A prediction is right when it is one of the labels. Examples without a label are not judged: the annotators agreed on
none. (vit_protocol 2.5; big_vision's classification evaluator does the same.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer_jax import types
from transformer_jax.evaluation import outputs
from transformer_jax.metrics import classification


class Predictions(NamedTuple):
    """One row an example, in the order of the split, those without a label too."""

    index: Int[np.ndarray, " examples"]
    """Where in the split the example stands: bad images that were skipped have no row."""
    label: Bool[np.ndarray, "examples classes"]
    predicted: Int[np.ndarray, " examples"]
    """-1 where a logit is no number, which is never right."""
    probability: Float[np.ndarray, " examples"]
    """Of the predicted class, among all by softmax."""


class MultiLabel:
    """The evaluator: `top1`, and `examples`, which counts those with a label.

    A label is a row with a weight above 0 for each right class. `predict(params, batch)` is the compiled function to
    logits. `keep` is given the `Predictions`, as a dictionary, of each whole evaluation. An empty dictionary when
    `stop()` became true.
    """

    def __init__(
        self,
        name: str,
        pipeline: outputs.Pipeline,
        predict: outputs.Predict,
        put: outputs.Put,
        *,
        keep: outputs.Keep | None = None,
    ):
        outputs.require_examples(name, pipeline)
        self.name = name
        self.pipeline = pipeline
        self._predict = predict
        self._put = put
        self._keep = keep

    def __call__(self, params: Any, *, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        totals, rows = None, outputs.Rows()
        for batch, logits in outputs.run(self._predict, params, self.pipeline, self._put, stop=stop):
            found = _tally(logits, batch["label"], batch["mask"])
            totals = found if totals is None else totals + found
            if self._keep is not None:
                rows.add(batch, _decide(logits, batch["label"]))
        if stop() or totals is None:
            return {}
        seen, labelled, right = map(int, jax.device_get(totals))
        outputs.require_all(self.name, self.pipeline, seen)
        if labelled == 0:
            raise types.InputError(
                f"An evaluator of label sets needs labels: none of the {seen} examples of {self.name!r} has one."
                f" Check config.evals.{self.name}."
            )
        if self._keep is not None:
            index, decided = rows.done()
            self._keep(Predictions(index, *decided)._asdict())
        return {"top1": right / labelled, "examples": float(labelled)}


@jax.jit
def _tally(
    logits: Float[Array, "batch classes"], label: Float[Array, "batch classes"], mask: Bool[Array, " batch"]
) -> Int[Array, "3"]:
    """Examples, those with a label, those that are right."""
    labelled = mask & (label > 0).any(-1)
    return jnp.stack([mask, labelled, labelled & classification.among(logits, label)]).sum(-1, dtype=jnp.int32)


@jax.jit
def _decide(
    logits: Float[Array, "batch classes"], label: Float[Array, "batch classes"]
) -> tuple[Bool[Array, "batch classes"], Int[Array, " batch"], Float[Array, " batch"]]:
    probability = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)
    return label > 0, classification.predicted(logits), probability
