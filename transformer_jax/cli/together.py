"""A verb as one of several processes: who speaks, and how all of them end."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import TextIO

from transformer_jax.parallel import multihost
from transformer_jax.training import exits, failures

NAMED = "TRANSFORMER_JAX_LINES_NAMED"
"""Set by a launcher that begins every line with the process it comes from."""

_ALL_COME = {exits.OK: 600.0, exits.PREEMPTED: 60.0}
"""Codes with which all processes end together, and the seconds that takes: process 0 may still write its report."""


def join(how: str | None) -> None:
    """Join the other processes, if there are any; from then on only process 0 prints the usual lines."""
    multihost.start(how)
    if multihost.count() == 1:
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)  # libraries report their connections on the standard output, which is for results
    if multihost.main():
        sys.stdout = os.fdopen(kept, "w", buffering=1)
    else:
        os.close(kept)
        sys.stdout = open(os.devnull, "w")
        if NAMED not in os.environ:
            sys.stderr = Lines(sys.stderr, f"[{multihost.index()}] ")


def complain(text: str, *, once: bool = True) -> None:
    """An error, on the standard error output; what process 0 says too is said by it alone (`once`)."""
    if not (once and multihost.said_by_main(text)):
        print(text, file=sys.stderr, flush=True)


def leave(verb: str, work: Callable[[], int]) -> int:
    """Do the work, end with the others; returns the exit code. An error nobody foresaw goes on as it is when alone."""
    try:
        code = work()
    except BaseException as error:
        if multihost.count() == 1:
            raise
        code = failures.exit_code(error)
        if code == exits.PEER_LOST:
            complain(f"transformer-jax {verb}: another process was lost: {str(error).splitlines()[0]}", once=False)
        else:
            traceback.print_exc()
    if code in _ALL_COME:
        multihost.stop(code, patience=_ALL_COME[code])
        return code
    if code == exits.PEER_LOST:
        told = multihost.told_to_end()
        code = code if told is None else told
    # One of them decides for all whether to start again, and which one that is a scheduler chooses (srun: the highest
    # code): what a restart cannot mend is the code of all.
    others = exits.PEER_LOST if code in exits.RESTARTABLE else code
    multihost.stop(code, others=others, patience=5.0 if code == exits.PEER_LOST else 20.0)
    return code


class Lines:
    """A text stream that begins every line with the same words."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream, self._prefix, self._fresh = stream, prefix, True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write(self._prefix + line if self._fresh else line)
            self._fresh = line.endswith("\n")
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
