"""Requests to stop."""

import os
import signal
import threading
import time

import pytest

from transformer_jax.training import preemption


def test_a_signal_raises_a_flag_and_nothing_else():
    with preemption.listen() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop()
        with pytest.raises(preemption.Preempted):
            stop.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_a_wait(number):
    with preemption.listen() as stop, pytest.raises(preemption.Preempted):
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        with stop.interruptible():
            threading.Event().wait()


def test_a_signal_just_before_a_wait_is_not_lost():
    stop = preemption.Stop()
    stop.request()
    with pytest.raises(preemption.Preempted), stop.interruptible():
        raise AssertionError("not reached")


@pytest.fixture
def interruptible():
    """SIGINT as a terminal leaves it: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_signal_acts_as_it_always_did(interruptible, monkeypatch):
    monkeypatch.setattr(preemption, "SAME", 0.0)
    with preemption.listen():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_signals_at_the_same_time_are_one_request(interruptible, monkeypatch):
    """As of a scheduler and the launcher under it, which both signal the process."""
    monkeypatch.setattr(preemption, "SAME", 0.3)
    with preemption.listen() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert stop()
        time.sleep(0.3)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_a_repeated_signal_interrupts_what_a_request_interrupts_once(interruptible):
    with preemption.listen() as stop:
        with pytest.raises(preemption.Preempted), stop.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # a save goes on
        with pytest.raises(preemption.Preempted):
            stop.check()


def test_an_interruption_that_comes_out_as_another_error_is_one_all_the_same():
    """A signal inside `Condition.wait` can leave its lock released, and `with` releases it again."""
    stop = preemption.Stop()
    with pytest.raises(preemption.Preempted), stop.interruptible():
        try:
            stop.request()
        finally:
            raise RuntimeError("release unlocked lock")


def test_an_error_of_what_may_be_interrupted_stays_what_it_is():
    with pytest.raises(ValueError, match="a bad image"), preemption.Stop().interruptible():
        raise ValueError("a bad image")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with preemption.listen():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_other_threads_get_a_flag_that_no_signal_raises():
    results = []

    def work():
        with preemption.listen() as stop:
            results.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


def test_it_is_no_exception_that_careless_code_swallows():
    assert not issubclass(preemption.Preempted, Exception)
    assert preemption.Preempted().code == 143


def test_within_another_it_is_the_same_request_and_the_second_signal_still_stops_at_once(interruptible, monkeypatch):
    monkeypatch.setattr(preemption, "SAME", 0.0)
    with preemption.listen() as outer:
        with preemption.listen() as inner:
            assert inner is outer
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert outer()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    with preemption.listen() as later:
        assert later is not outer and not later()
