"""The exit codes of the command line, and which of them a supervisor may answer by starting the same command again.

Nothing is imported here: `launch/` reads it too (`python -m transformer_jax.training.exits`).
"""

OK = 0
FAILED = 1
"""An error nobody foresaw, a full disk among them: a traceback is above it. Starting again would meet it again."""
BAD_INPUT = 2
"""A mistake in what was asked for, named in one message (an experiment, a path, memory that is not enough)."""
DIVERGED = 3
"""A loss, gradient or update was not finite. The last good checkpoint stands."""
HUNG = 75
"""The watchdog saw no progress; stacks and memory are in RUN/hang-PROCESS.txt. (75 is `EX_TEMPFAIL`.)"""
INTERRUPTED = 130
"""Ctrl-C before there was anything to save, or a second time."""
PEER_LOST = 134
"""Another process of the run died. `jax.distributed` ends the others from C++ with SIGABRT: 128 + 6."""
KILLED = 137
"""SIGKILL, as the kernel sends when memory runs out: 128 + 9. Never returned, only seen by a supervisor."""
READER_GONE = 141
"""Nobody reads the output any more (`| head`): 128 + SIGPIPE."""
PREEMPTED = 143
"""SIGTERM or Ctrl-C, and the run is saved: 128 + SIGTERM."""

RESTARTABLE = frozenset({HUNG, PEER_LOST, KILLED, PREEMPTED})
"""The same command may go on where others would end the same way again. 143 only where the machine comes back: a
supervisor that was told to stop itself must not start it again."""

if __name__ == "__main__":
    print(" ".join(str(code) for code in sorted(RESTARTABLE)))
