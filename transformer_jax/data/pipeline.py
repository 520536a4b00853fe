"""Batches of a source: endless and shuffled for training, exactly once and masked for evaluation.

Position p of the stream of all processes is example p of an order that is arithmetic (`order`). A batch is the next
`batch_size` positions, and process i of n reads the i-th of n equal runs of them, so that the processes' parts, one
after the other, are the batch of a single process. Nothing but that position is state.
Grain reads ahead with threads, or with worker processes, chunk by chunk: `prefetch` batches and no more.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from transformer_jax import types
from transformer_jax.data import field_ops, loading, operation, ops, order, sources, streams

_CHUNK = 16
"""At most so many examples of a source on disk are one thread's errand."""
_ENDLESS = 1 << 50
Batch = dict[str, Any]


class _Pipeline:
    """What training and evaluation pipelines share: the source, the ops, the chunks."""

    def __init__(
        self,
        source: "sources.Source",
        preprocess: str | Sequence[operation.Op],
        *,
        batch_size: int,
        seed: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int | None = None,
        workers: int = 0,
        on_bad_image: str = "raise",
        prefetch: int = 2,
        ids: bool = False,
    ):
        _check(batch_size, process_index, process_count, on_bad_image)
        if min(prefetch, workers, threads or 0) < 0:
            raise types.InputError(
                f"threads, workers and prefetch must be at least 0: they are {threads}, {workers} and {prefetch}."
            )
        plan = loading.plan(ops.parse(preprocess))
        self.source = source
        self.batch_size = batch_size
        self.local_batch_size = batch_size // process_count
        self.pixel_range = plan.pixel_range
        self.num_classes = source.num_classes
        self.class_names = source.class_names
        self.num_examples = len(source)
        self.fingerprint = source.fingerprint
        self.process = (process_index, process_count)
        """Which of how many equal runs of each batch is read here."""
        self._threads = (1 if source.in_memory else _cores()) if threads is None else threads
        self._workers = workers
        self._prefetch = prefetch
        self._skip = on_bad_image == "skip"
        self._loader = loading.Loader(source, plan, seed=seed, skip_bad=self._skip, ids=ids)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of every image."""
        shape = self._first["image"].shape[1:]
        field_ops.require_channels(self.pixel_range, shape[-1])
        return shape

    @property
    def label_shape(self) -> tuple[int, ...]:
        """() for integer labels, (classes,) for rows of `onehot` and `multihot`."""
        return self._first["label"].shape[1:]

    @functools.cached_property
    def _first(self) -> Batch:
        return self._loader.load([(0, 0)])

    @functools.cached_property
    def _chunk_size(self) -> int:
        size = self.local_batch_size
        if self.source.in_memory:
            return size
        return next(chunk for chunk in range(min(size, _CHUNK), 0, -1) if size % chunk == 0)

    @property
    def _blocks(self) -> "_Blocks":
        return _Blocks(self.batch_size, self.process, self._chunk_size)

    def _stream(
        self, chunks: Callable[[int], Batch], length: int, *, finish: Callable[[Batch], Batch]
    ) -> streams.Stream:
        return streams.Stream(
            chunks,
            length,
            finish=finish,
            per_batch=self.local_batch_size // self._chunk_size,
            threads=self._threads,
            workers=self._workers,
            prefetch=self._prefetch,
        )


def _check(batch_size: int, process_index: int, process_count: int, on_bad_image: str) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise types.InputError(
            f"batch_size counts the examples of all processes and divides by their number: {batch_size} examples,"
            f" {process_count} processes."
        )
    if on_bad_image not in ("raise", "skip"):
        raise types.InputError(f'on_bad_image is "raise" or "skip", not {on_bad_image!r}.')
    if not 0 <= process_index < process_count:
        raise types.InputError(f"process_index lies in 0..{process_count - 1}, not {process_index}.")


class Train(_Pipeline):
    """An endless stream of batches; `batches(start)` continues it after `start` examples (of all processes).

    With `on_bad_image="skip"` a bad image is replaced by the next good one, and `loading.SKIPPED` of a batch says how
    many were passed over for each example.
    """

    def __init__(
        self,
        source: "sources.Source",
        preprocess: str | Sequence[operation.Op],
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        shuffle: bool = True,
        threads: int | None = None,
        workers: int = 0,
        on_bad_image: str = "raise",
        prefetch: int = 2,
        ids: bool = False,
    ):
        super().__init__(
            source,
            preprocess,
            batch_size=batch_size,
            seed=seed,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            workers=workers,
            on_bad_image=on_bad_image,
            prefetch=prefetch,
            ids=ids,
        )
        self._order = order.Order(len(source), seed=seed, shuffle=shuffle)

    def batches(self, start: int = 0) -> streams.Stream:
        """Batches of this process from global position `start` on. Close the stream to end its threads."""
        chunks = _TrainChunks(self._loader, self._order, start, self._blocks)
        return self._stream(chunks, _ENDLESS, finish=self._told)

    def _told(self, batch: Batch) -> Batch:
        return batch if self._skip else {name: value for name, value in batch.items() if name != loading.SKIPPED}


class Evaluate(_Pipeline):
    """Every example once, in batches of constant shape; `mask` is False where the last one is padded.

    With `on_bad_image="skip"` a bad image is masked out as well and counted.
    """

    skipped = 0
    """Bad images of the last pass."""

    @property
    def num_batches(self) -> int:
        """The same on every process."""
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        chunks = _EvaluateChunks(self._loader, self.num_examples, self._blocks)
        length = self.num_batches * (self.local_batch_size // self._chunk_size)
        self.skipped = 0
        with contextlib.closing(self._stream(chunks, length, finish=self._mask)) as stream:
            yield from stream

    def _mask(self, batch: Batch) -> Batch:
        bad = batch.pop(loading.SKIPPED) > 0
        self.skipped += int(bad.sum())
        return {**batch, "mask": batch["mask"] & ~bad}


class _Blocks:
    """Where chunk c of this process begins: its batches are runs of `local` positions, `batch` apart."""

    def __init__(self, batch: int, process: tuple[int, int], size: int):
        self._batch, self.size = batch, size
        self._local = batch // process[1]
        self._first = process[0] * self._local

    def __call__(self, chunk: int) -> int:
        number, within = divmod(chunk * self.size, self._local)
        return number * self._batch + self._first + within


class _TrainChunks:
    """Chunk c of one process of the endless stream."""

    def __init__(self, loader: loading.Loader, where: order.Order, start: int, blocks: _Blocks):
        self._loader, self._where, self._start, self._blocks = loader, where, start, blocks

    def __call__(self, chunk: int) -> Batch:
        begin = self._start + self._blocks(chunk)
        return self._loader.load(self._where(begin + np.arange(self._blocks.size)))


class _EvaluateChunks:
    """Chunk c of one process of a single pass; examples beyond the end are padding."""

    def __init__(self, loader: loading.Loader, length: int, blocks: _Blocks):
        self._loader, self._length, self._blocks = loader, length, blocks

    def __call__(self, chunk: int) -> Batch:
        begin, size = self._blocks(chunk), self._blocks.size
        real = range(begin, min(begin + size, self._length))
        batch = self._loader.load([(0, position) for position in real or [0]])
        if len(real) < size:
            batch = {name: _padded(values[: len(real)], size) for name, values in batch.items()}
        return {**batch, "mask": np.arange(size) < len(real)}


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    padding = np.zeros((size - len(values), *values.shape[1:]), values.dtype)
    return np.concatenate([values, padding])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
