"""Failures a run is told about in words: numbers that are not finite, memory or a disk that is not enough."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Generator, Mapping
from typing import Any

import jax

from transformer_jax import types
from transformer_jax.training import exits

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


class DiskFull(OSError):
    """A file could not be written for want of space. The message names the disk."""


_FULL = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}
_LOST = (
    *("closed by peer", "reset by peer", "Broken pipe", "heartbeat", "coordination service", "remote process exited"),
    "Gloo context initialization failed",  # one did not come within Gloo's 30 seconds
)


def exit_code(error: BaseException) -> int:
    """The exit code of a process that `error` ends (`exits`)."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else exits.OK if error.code is None else exits.FAILED
    if isinstance(error, KeyboardInterrupt):
        return exits.INTERRUPTED
    if isinstance(error, types.InputError):
        return exits.BAD_INPUT
    if isinstance(error, Diverged):
        return exits.DIVERGED
    return exits.PEER_LOST if lost_peer(error) else exits.FAILED


def lost_peer(error: BaseException) -> bool:
    """Whether `error` is how a collective or the coordination service says that another process is gone."""
    if type(error).__name__ == "PeerLost":
        return True
    text = str(error)
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and any(sign in text for sign in _LOST)


@contextlib.contextmanager
def disk_hints(directory: str | os.PathLike[str]) -> Generator[None, None, None]:
    """Within this context an error of a full disk becomes a `DiskFull` that names the disk of `directory`."""
    try:
        yield
    except Exception as error:
        said = next((text for number, text in _FULL.items() if _is(error, number, text)), None)
        if said is None or isinstance(error, DiskFull):
            raise
        raise DiskFull(disk_full(directory, said)) from error


def _is(error: BaseException, number: int, text: str) -> bool:
    """Whether the error, or one that it came from, is this one of the system: tensorstore says it in words only."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) == number or text in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def disk_full(directory: str | os.PathLike[str], said: str) -> str:
    """What to do about a disk that is full."""
    usage = shutil.disk_usage(directory)
    return (
        f"A run needs room for its checkpoints and numbers: the disk of {os.fspath(directory)} has"
        f" {usage.free / 2**30:.2f} of {usage.total / 2**30:.1f} GiB left ({said}). Finished checkpoints"
        " stand. Make room, or lower checkpoint.keep_last, and give the same command again."
    )


def diverged(record: BatchRecord, metrics: Mapping[str, Any], directory: str | os.PathLike[str] | None) -> Diverged:
    """The error for a step that was not finite, with a report of it in `directory`/diverged.json.

    The report has the global positions of the batch in the data order, and ids where the pipeline gives them.
    """
    where = ""
    last = record.first_example + record.batch_size - 1
    if directory is not None:
        path = os.path.join(directory, REPORT)
        report = {
            "step": record.step,
            "first_example": record.first_example,
            "last_example": last,
            "batch_size": record.batch_size,
            **({} if record.ids is None else {"ids": [str(name) for name in record.ids]}),
            "metrics": {name: str(value) for name, value in metrics.items()},
        }
        with open(path, "w") as file:
            json.dump(report, file, indent=2, default=str)
        where = f" The batch is described in {path}."
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
    """Within this context an out-of-memory error of the device becomes an `InputError` that says what to change.

    Others have the same code: a file that cannot be opened for want of handles is no matter of the device.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
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
