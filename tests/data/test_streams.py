"""A stream whose reading was interrupted closes in bounded time."""

import threading
import time

import pytest

from transformer_jax.data import streams


class Reader:
    """An iterator that is interrupted while it holds its lock, which it needs to close."""

    def __init__(self, error):
        self._error, self._lock, self.closed = error, threading.Lock(), threading.Event()

    def __next__(self):
        self._lock.acquire()
        if self._error is None:
            self._lock.release()
            return {"x": 1}
        raise self._error

    def close(self):
        with self._lock:
            self.closed.set()


@pytest.fixture
def stream(monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.2)

    def make(error):
        made = streams.Stream(lambda c: {}, 4, finish=dict, per_batch=1, threads=0, workers=0, prefetch=0)
        made._open[0].close()
        opened: list = made._open
        opened[0] = Reader(error)
        return made, made._open[0]

    return make


@pytest.mark.parametrize("error", [SystemExit(143), RuntimeError("release unlocked lock")])
def test_a_lock_that_an_interruption_left_held_does_not_keep_the_stream_from_closing(stream, error):
    interrupted, reader = stream(error)
    with pytest.raises(type(error)):
        next(interrupted)
    begun = time.monotonic()
    interrupted.close()
    assert 0.1 < time.monotonic() - begun < 5 and not reader.closed.is_set()
    interrupted.close()  # again: nothing is left to do
    reader._lock.release()


def test_a_stream_that_was_not_interrupted_is_closed_when_it_says_so(stream):
    whole, reader = stream(None)
    assert next(whole) == {"x": 1}
    whole.close()
    assert reader.closed.is_set()
