"""One process of a run: the command line, but what it reads is written down, and faults come as they are told.

    python -m tests.processes.worker train --config ... --processes HOST:PORT,COUNT,INDEX

RECORD=FOLDER writes the ids of every batch there. SLOW=SECONDS waits before each batch, SLOW_SAVES before a save is
committed, SLOW_EVALUATION each batch of an evaluation, whose first one is marked in RECORD, so that signals come in
time. POISON=POSITION makes the labels of process 1 NaN in the batch that begins there. MISSING=INDEX: the data are not
on the machine of that process.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np

from transformer_jax.data import loading, pipeline, sources


class Recorded:
    """The stream of a training pipeline, every batch of it written down when it is handed out."""

    def __init__(self, inner, pipe, position, file, *, told=lambda position: None):
        self._inner, self._pipe, self._position, self._file, self._told = inner, pipe, position, file, told
        self._slow, self._poison = float(os.environ.get("SLOW", 0)), int(os.environ.get("POISON", -1))

    def __next__(self):
        time.sleep(self._slow)
        batch = next(self._inner)
        line = {"position": self._position, "process": self._pipe.process, "ids": [str(i) for i in batch[loading.ID]]}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._told(self._position)
        if self._position == self._poison and self._pipe.process[0] == 1:
            batch["label"] = np.full_like(batch["label"], np.nan)
        self._position += self._pipe.batch_size
        return batch

    def close(self):
        self._inner.close()
        self._file.close()


def record(folder, patch, told=lambda position: None):
    """From now on, training pipelines write down what they give. `patch(object, name, value)` sets an attribute."""
    init, batches = pipeline.Train.__init__, pipeline.Train.batches
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)

    def with_ids(self, *args, **options):
        init(self, *args, **{**options, "ids": True})

    def recorded(self, start=0):
        file = (pathlib.Path(folder) / f"{os.getpid()}.jsonl").open("a")
        return Recorded(batches(self, start), self, start, file, told=told)

    patch(pipeline.Train, "__init__", with_ids)
    patch(pipeline.Train, "batches", recorded)


def read(folder):
    """`{position: ids}` of every batch, put together from the processes; whoever reads one again reads the same."""
    parts = {}
    for file in pathlib.Path(folder).glob("*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            index, count = line["process"]
            share = range(index * len(line["ids"]), (index + 1) * len(line["ids"]))
            for place, name in zip(share, line["ids"], strict=True):
                assert parts.setdefault((line["position"], place), name) == name, line
    positions = sorted({position for position, _ in parts})
    return {position: [parts[key] for key in sorted(parts) if key[0] == position] for position in positions}


def _commit_slowly(seconds):
    from orbax.checkpoint._src.checkpointers import async_checkpointer

    commit = async_checkpointer._background_wait_for_commit_futures

    def slowly(*args, **options):
        time.sleep(seconds)
        commit(*args, **options)

    async_checkpointer._background_wait_for_commit_futures = slowly


def _evaluate_slowly(seconds, mark):
    batches = pipeline.Evaluate.__iter__

    def slowly(self):
        for batch in batches(self):
            mark.touch()
            time.sleep(seconds)
            yield batch

    pipeline.Evaluate.__iter__ = slowly


if __name__ == "__main__":
    from transformer_jax.cli import main

    if "RECORD" in os.environ:
        record(os.environ["RECORD"], setattr)
    if "SLOW_SAVES" in os.environ:
        _commit_slowly(float(os.environ["SLOW_SAVES"]))
    if "SLOW_EVALUATION" in os.environ:
        _evaluate_slowly(float(os.environ["SLOW_EVALUATION"]), pathlib.Path(os.environ["RECORD"], "evaluating"))
    if "MISSING" in os.environ and sys.argv[-1].endswith(f",{os.environ['MISSING']}"):
        sources.missing = lambda sections: ["folder:photos is not a directory. Put your images there."]
    sys.exit(main.main())
