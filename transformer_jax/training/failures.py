"""Failures a run is told about in words: numbers that are not finite, and memory that is not enough."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Generator, Mapping
from typing import Any

from transformer_jax import types

REPORT = "diverged.json"


@dataclasses.dataclass(frozen=True)
class BatchRecord:
    """Which examples a step saw: enough to find a bad one again."""

    step: int
    """Steps taken, this one included."""
    first_example: int
    """Global position of the first example of the batch; the last one stands right before the next batch's first."""
    batch_size: int
    ids: Any = None
    """The ids of the examples this process read, when the pipeline gives them."""


class Diverged(RuntimeError):
    """A loss, gradient or update was not finite, and the run was not told to skip such batches."""


def diverged(record: BatchRecord, metrics: Mapping[str, Any], directory: str | os.PathLike[str] | None) -> Diverged:
    """The error for a step that was not finite, with a report of it in `directory`/diverged.json."""
    where = ""
    if directory is not None:
        path = os.path.join(directory, REPORT)
        ids = None if record.ids is None else [str(name) for name in record.ids]
        report = {
            **dataclasses.asdict(record),
            "ids": ids,
            "metrics": {name: str(value) for name, value in metrics.items()},
        }
        with open(path, "w") as file:
            json.dump(report, file, indent=2, default=str)
        where = f" The batch is described in {path}."
    last = record.first_example + record.batch_size - 1
    shown = ", ".join(f"{name} {metrics[name]:.4g}" for name in ("loss", "grad_norm", "update_norm") if name in metrics)
    return Diverged(
        f"Training needs finite numbers: step {record.step} gave {shown} on examples {record.first_example} to {last}"
        f" of the data order. Nothing of it was kept or saved; the last good checkpoint stands.{where} Lower the"
        " learning rate or lengthen the warmup; to leave such batches out instead, set train.nonfinite='skip'."
    )


@contextlib.contextmanager
def memory_hints(
    *, batch_size: int, accumulate: int = 1, remat: str | None = None, devices: int = 1
) -> Generator[None, None, None]:
    """Within this context an out-of-memory error of the device becomes an `InputError` that says what to change."""
    try:
        yield
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise types.InputError(
            out_of_memory(str(error), batch_size=batch_size, accumulate=accumulate, remat=remat, devices=devices)
        ) from error


def out_of_memory(error: str, *, batch_size: int, accumulate: int, remat: str | None, devices: int) -> str:
    """What to do about a RESOURCE_EXHAUSTED error of these settings."""
    doubled = 2 * accumulate
    at_once = batch_size // (accumulate * devices)
    remedies = []
    if at_once > 1 and batch_size % doubled == 0:
        remedies.append(
            f"--config.train.accumulate={doubled} (the same batch, {max(1, at_once // 2)} examples at a time)"
        )
    if remat in (None, "none"):
        remedies.append("--config.model.remat=full (about a third slower, activations recomputed)")
    if devices > 1:
        remedies.append("an 'fsdp' axis in parallel.mesh (parameters and optimizer spread over devices)")
    remedies.append("a smaller data.batch_size (this changes the result: tune the learning rate again)")
    return (
        f"A step must fit the memory of a device: {at_once} examples at a time on each of {devices} did not"
        f" (batch_size {batch_size}, accumulate {accumulate}, remat {remat})."
        f" In this order, try {'; '.join(remedies)}. The device said: {error.strip().splitlines()[0][:300]}"
    )
