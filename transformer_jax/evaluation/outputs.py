"""A compiled function run over every batch of a split, kept a little ahead of the device and never in step with it."""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.parallel import memory, multihost

Predict = Callable[[Any, Any], Any]
Put = Callable[[Mapping[str, Any]], Any]
Keep = Callable[[Mapping[str, np.ndarray]], Any]
"""Is given the rows of an evaluation that was completed, by name."""
POSITION = "_position"
_NOT_FOR_THE_MODEL = ("label", "mask", POSITION)  # labels of another form must not compile it again

_AHEAD = 2  # batches given to the device before the host waits: enough to hide the host, few enough to fit in memory


@runtime_checkable
class Pipeline(Protocol):
    """What an evaluator reads: batches of one shape, `mask` false where an example only fills up the last one."""

    process: tuple[int, int]
    """Which of how many equal runs of each batch this process is given."""

    @property
    def num_examples(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...


def run(
    predict: Predict, params: Any, pipeline: Pipeline, put: Put, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Any, Any]]:
    """`(batch on the devices, predict(params, its inputs))` of every batch, until `stop()`.

    `POSITION` of a batch is where its examples stand in the split: each process reads a run of every batch.
    """
    index, count = pipeline.process
    waiting: collections.deque[Any] = collections.deque()
    for number, local in enumerate(pipeline):
        if stop():
            return
        size = len(local["mask"])
        at = (number * count + index) * size + np.arange(size, dtype=np.int32)
        batch = put({**local, POSITION: at})
        result = predict(params, {name: array for name, array in batch.items() if name not in _NOT_FOR_THE_MODEL})
        waiting.append(result)
        yield batch, result
        if len(waiting) > _AHEAD:
            jax.block_until_ready(waiting.popleft())


class Rows:
    """What a pass computes for each example, gathered on the host: exactly the examples, in the order of the split.

    With several processes every one of them gets the rows of all.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._waiting: tuple[Any, Any] | None = None

    def add(self, batch: Mapping[str, Any], arrays: Any) -> None:
        """The rows of one batch, a tree of arrays."""
        self._read()  # one batch late, so that the device already has the next one
        self._waiting = batch["mask"], (batch[POSITION], arrays)

    def done(self) -> tuple[np.ndarray, Any]:
        """Where in the split each row stands, and the rows."""
        self._read()
        if not self._parts:
            raise ValueError("Rows are gathered from at least one batch: the pipeline gave none.")
        position, arrays = jax.tree.map(lambda *rows: np.concatenate(rows), *self._parts)
        order = np.argsort(position, kind="stable")
        return position[order], jax.tree.map(lambda rows: rows[order], arrays)

    def _read(self) -> None:
        if self._waiting is not None:
            mask, arrays = self._waiting
            kept = memory.fetched(mask).astype(bool)
            self._parts.append(jax.tree.map(lambda array: memory.fetched(array)[kept], arrays))
            self._waiting = None


def collect(
    predict: Predict,
    params: Any,
    pipeline: Pipeline,
    put: Put,
    *names: str,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Any, ...] | None:
    """The `Rows` of `(predict(params, batch), batch[name], ...)`. `None` when stopped."""
    rows = Rows()
    for batch, result in run(predict, params, pipeline, put, stop=stop):
        rows.add(batch, (result, *(batch[name] for name in names)))
    return None if stop() else rows.done()[1]


def require_examples(name: str, pipeline: Pipeline) -> None:
    """Raises `InputError` when there is nothing to evaluate on."""
    if pipeline.num_examples == 0:
        raise types.InputError(
            f"An evaluator needs examples: the split of {name!r} has none. Check config.evals.{name}."
        )


def require_all(name: str, pipeline: Pipeline, count: int) -> None:
    """Raises unless every example was counted, but for bad images the pipeline was told to skip.

    All processes ask together; processes that were given the same examples skipped the same ones.
    """
    own = [pipeline.process[0], getattr(pipeline, "skipped", 0)]
    skipped = sum(dict(multihost.gather(own)).values())
    examples = pipeline.num_examples
    if count + skipped != examples:
        raise RuntimeError(f"{name} counted {count} of {examples} examples, {skipped} skipped.")
    if count == 0:
        raise types.InputError(f"An evaluator needs examples: all {examples} of {name!r} are bad images.")
