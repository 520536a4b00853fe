"""SIGTERM and Ctrl-C: save where the run stands, then leave with exit code 143.

A signal only raises a flag; the loop polls it where the state is whole. Where nothing can be lost (waiting for data,
evaluating) it also interrupts: `with stop.interruptible():`. A second signal ends the process at once, but not within
`SAME` seconds of the first: a scheduler and the launcher under it both pass on the one request.

Of several processes any may get the signal. All poll at the same places, and agree on the poll where all stop; nothing
interrupts there, for the others could not know.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType

from transformer_jax.training import exits, stopping

SAME = 5.0
"""Seconds from the first signal in which others are the same request."""


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
        self.polls = 0
        """How often it was asked: a sign of life."""
        self.hung: Callable[[str], None] = lambda said: None
        """What to do when another process of the run says that it hangs."""

    def tell(self, message: str) -> None:
        """Says to the other processes that this one hangs."""

    def __call__(self) -> bool:
        self.polls += 1
        return self._requested

    def request(self) -> None:
        """What a signal does. Safe to call from a signal handler."""
        self._requested = True
        if self._interrupts:
            self._interrupts = False
            raise Preempted

    def check(self) -> None:
        """Raises `Preempted` if the run has been asked to stop."""
        if self():
            raise Preempted

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """Within this context a signal raises `Preempted` at once, wherever the main thread is.

        That may be inside a lock of somebody's queue, and come out as another error: that counts as `Preempted`.
        """
        self._interrupts = True  # before the check: a signal between the two must not be lost
        try:
            self.check()
            yield
        except Exception as error:
            if self._requested:
                raise Preempted from error
            raise
        finally:
            self._interrupts = False


class Together(Stop):
    """The same of a run of several processes: it becomes true at the same call on all of them."""

    def __init__(self, others: stopping.Agreement) -> None:
        super().__init__()
        self._others = others
        others.hung = lambda said: self.hung(said)

    def tell(self, message: str) -> None:
        self._others.tell(message)

    def __call__(self) -> bool:
        self.polls += 1
        return self._others.poll()

    def request(self) -> None:
        self._others.request()

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        self.check()
        yield


_active: Stop | None = None


@contextlib.contextmanager
def listen(signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> Generator[Stop, None, None]:
    """Within this context the first of `signals` is a request to stop; one after `SAME` seconds acts as it always did.

    Within another such context it is that one's. Outside the main thread, where Python allows no handlers, nothing is
    installed.
    """
    global _active
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    if _active is not None:
        yield _active
        return
    with stopping.agreement() as others:
        stop = Stop() if others is None else Together(others)

        first: list[float] = []

        def handle(number: int, frame: FrameType | None) -> None:
            if first:
                if time.monotonic() - first[0] >= SAME:
                    restore()
                    signal.raise_signal(number)
                return
            first.append(time.monotonic())
            text = (
                f"\n{signal.Signals(number).name}: stopping at the end of this step, after a save."
                f" Once more after {SAME:g} s: stop now.\n"
            )
            os.write(2, text.encode())
            stop.request()

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

        previous = {number: signal.signal(number, handle) for number in signals}
        _active = stop
        try:
            yield stop
        finally:
            _active = None
            restore()
