"""Frozen features of a split, computed once for any number of probes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from numpy import ndarray

from transformer_jax.evaluation import outputs


class Features(NamedTuple):
    """One row an example, in the order of the split."""

    features: Float[ndarray, "examples embed"]
    labels: Int[ndarray, " examples"]


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
