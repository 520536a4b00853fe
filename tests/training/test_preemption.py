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


def test_the_second_signal_acts_as_it_always_did(interruptible):
    with preemption.listen():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


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


def test_within_another_it_is_the_same_request_and_the_second_signal_still_stops_at_once(interruptible):
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
