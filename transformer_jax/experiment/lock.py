"""One run at a time in a run directory: the lock of its first process."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import IO

from transformer_jax import types

FILE = ".lock"
PATIENCE = 120.0
"""Seconds to wait for a lock of another machine: NFS takes it from a machine that is gone after 90."""

_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def hold(folder: Path, held: contextlib.ExitStack) -> None:
    """Take the lock of `folder`, which is made if it is not there, for as long as `held` is open.

    Raises `InputError` when another run has it: at once where that is of this machine, whose locks end with their
    process; after a while where it is of another one, which may be gone. A file system without locks is warned of.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = held.enter_context(os.fdopen(os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o666), "r+"))
    except OSError as error:
        raise types.InputError(f"--workdir must be a directory one can write to: {folder}: {error.strerror}.") from None
    deadline = None
    while not _taken(file, folder):
        holder = _holder(file)
        if holder.get("machine") == _machine():
            raise types.InputError(_refusal(folder, holder))
        if deadline is None:
            deadline = time.monotonic() + PATIENCE
            _say(f"{folder} is locked by {_words(holder)}; waiting up to {PATIENCE:g} s for it to end or be given up.")
        if time.monotonic() >= deadline:
            raise types.InputError(_refusal(folder, holder))
        time.sleep(min(1.0, PATIENCE / 10))
    file.seek(0)
    file.truncate()
    json.dump({"machine": _machine(), "host": socket.gethostname(), "pid": os.getpid()}, file)
    file.flush()


def _taken(file: IO[str], folder: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
        warnings.warn(
            f"The file system of {folder} has no locks ({error.strerror}): see to it that one run at a time trains"
            " there.",
            stacklevel=2,
        )
    return True


def _holder(file: IO[str]) -> dict[str, object]:
    """The process that has the lock, as it wrote it; nothing when it has not yet, or is of an older version."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _machine() -> str:
    """This machine since it was started. Not its name: pods are given the same one again, on another machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _words(holder: dict[str, object]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"


def _refusal(folder: Path, holder: dict[str, object]) -> str:
    gone = "" if holder.get("machine") == _machine() else f" If that machine is gone for good, delete {folder / FILE}."
    return (
        f"One run trains in a run directory: another one is at work in {folder} ({_words(holder)}). Wait for it, or"
        f" choose another --workdir.{gone}"
    )


def _say(text: str) -> None:
    print(f"transformer-jax: {text}", file=sys.stderr, flush=True)
