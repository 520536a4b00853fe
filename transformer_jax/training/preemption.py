"""SIGTERM and Ctrl-C: save where the run stands, then leave with exit code 143.

A signal only raises a flag; the loop polls it where the state is whole. Where nothing can be lost (waiting for data,
evaluating) it also interrupts: `with stop.interruptible():`. A second signal ends the process at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Generator, Sequence
from types import FrameType

from transformer_jax.training import exits


class Preempted(SystemExit):
    """The run was asked to stop and has been saved. Uncaught, it ends the process with exit code 143.

    Not an `Exception`: code that skips over bad images must not skip over this.
    """

    def __init__(self) -> None:
        super().__init__(exits.PREEMPTED)


class Stop:
    """Whether the run has been asked to stop. Call it to know."""

    def __init__(self) -> None:
        self._requested = False
        self._interrupts = False

    def __call__(self) -> bool:
        return self._requested

    def request(self) -> None:
        """What a signal does. Safe to call from a signal handler."""
        self._requested = True
        if self._interrupts:
            self._interrupts = False
            raise Preempted

    def check(self) -> None:
        """Raises `Preempted` if the run has been asked to stop."""
        if self._requested:
            raise Preempted

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """Within this context a signal raises `Preempted` at once, wherever the main thread is."""
        self._interrupts = True  # before the check: a signal between the two must not be lost
        try:
            self.check()
            yield
        finally:
            self._interrupts = False


_active: Stop | None = None


@contextlib.contextmanager
def listen(signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> Generator[Stop, None, None]:
    """Within this context the first of `signals` is a request to stop; the next one acts as it always did.

    Within another such context it is that one's. Outside the main thread, where Python allows no handlers, nothing is
    installed.
    """
    global _active
    if _active is not None and threading.current_thread() is threading.main_thread():
        yield _active
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        text = (
            f"\n{signal.Signals(number).name}: stopping at the end of this step, after a save. Once more: stop now.\n"
        )
        os.write(2, text.encode())
        stop.request()

    previous = {number: signal.signal(number, handle) for number in signals}
    _active = stop
    try:
        yield stop
    finally:
        _active = None
        restore()
