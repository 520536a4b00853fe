"""A stream of batches: Grain reads ahead with threads or worker processes, chunk by chunk."""

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from transformer_jax.data import spawning

Batch = dict[str, Any]
_PATIENCE = 10.0
"""Seconds for a reader that was interrupted to close."""


class Stream:
    """Chunks 0, 1, 2 ... computed ahead by Grain and joined into batches."""

    def __init__(
        self,
        chunks: Callable[[int], Batch],
        length: int,
        *,
        finish: Callable[[Batch], Batch],
        per_batch: int,
        threads: int,
        workers: int,
        prefetch: int,
    ):
        import grain

        ahead = max(prefetch * per_batch, 1)
        options = grain.ReadOptions(
            num_threads=min(threads, ahead) if prefetch else 0,
            prefetch_buffer_size=ahead if threads and prefetch else 0,
        )
        dataset = grain.MapDataset.range(length).map(chunks).to_iter_dataset(options)
        if workers:
            spawning.prepare()
            each = grain.MultiprocessingOptions(
                num_workers=workers, per_worker_buffer_size=max(1, math.ceil(ahead / workers))
            )
            dataset = dataset.mp_prefetch(each, spawning.follow)
        self._per_batch = per_batch
        self._finish = finish
        self._copy = workers > 0
        self._torn = False
        self._open = [iter(dataset)]
        # At the latest when the program ends, while there still is an interpreter to end threads and processes in.
        self._end = weakref.finalize(self, _close, self._open)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._open:
            raise ValueError("This stream is closed. Ask the pipeline for another.")
        source = self._open[0]
        try:
            chunks = [next(source) for _ in range(self._per_batch)]
        except StopIteration:
            raise
        except BaseException:
            self._torn = True
            raise
        if len(chunks) == 1 and not self._copy:
            return self._finish(chunks[0])
        return self._finish({name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]})

    def close(self) -> None:
        """Stops reading ahead: threads end after the chunk they are at, worker processes now.

        A signal may have left a lock of the reader held, for which its closing would wait for ever: then not for long.
        """
        if not self._torn:
            self._end()
            return
        thread = threading.Thread(target=self._end, name="close data", daemon=True)
        thread.start()
        thread.join(_PATIENCE)


def _close(opened: list[Any]) -> None:
    """Closes the iterator and lets go of it: Grain closes again when it is collected, which must not be at the exit."""
    while opened:
        opened.pop().close()
