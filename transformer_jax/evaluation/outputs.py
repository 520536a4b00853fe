"""A compiled function run over every batch of a split, kept a little ahead of the device and never in step with it."""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils

from transformer_jax import types

Predict = Callable[[Any, Any], Any]
Put = Callable[[Mapping[str, Any]], Any]

_AHEAD = 2  # batches given to the device before the host waits: enough to hide the host, few enough to fit in memory


@runtime_checkable
class Pipeline(Protocol):
    """What an evaluator reads: batches of one shape, `mask` false where an example only fills up the last one."""

    @property
    def num_examples(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...


def run(
    predict: Predict, params: Any, pipeline: Pipeline, put: Put, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Any, Any]]:
    """`(batch on the devices, predict(params, batch))` of every batch, until `stop()`."""
    waiting: collections.deque[Any] = collections.deque()
    for local in pipeline:
        if stop():
            return
        batch = put(local)
        result = predict(params, batch)
        waiting.append(result)
        yield batch, result
        if len(waiting) > _AHEAD:
            jax.block_until_ready(waiting.popleft())


def collect(
    predict: Predict,
    params: Any,
    pipeline: Pipeline,
    put: Put,
    *names: str,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Any, ...] | None:
    """The rows of exactly the examples, in order, on the host: `(outputs, batch[name], ...)`. `None` when stopped.

    With several processes every one of them gets the rows of all.
    """
    parts: list[Any] = []
    before = None  # read one batch late, so that the device already has the next one
    for batch, result in run(predict, params, pipeline, put, stop=stop):
        if before is not None:
            parts.append(_rows(before))
        before = (batch["mask"], (result, *(batch[name] for name in names)))
    if stop():
        return None
    if before is None:
        raise ValueError("outputs.collect needs at least one batch: the pipeline gave none.")
    parts.append(_rows(before))
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def require_examples(name: str, pipeline: Pipeline) -> None:
    """Raises `InputError` when there is nothing to evaluate on."""
    if pipeline.num_examples == 0:
        raise types.InputError(
            f"An evaluator needs examples: the split of {name!r} has none. Check config.evals.{name}."
        )


def _rows(item: tuple[jax.Array, Any]) -> Any:
    mask, arrays = item
    kept = _host(mask).astype(bool)
    return jax.tree.map(lambda array: _host(array)[kept], arrays)


def _host(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(jax.device_get(array))
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
