"""Processes that stop together, without processes: threads and a store in memory."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from transformer_jax.training import exits, preemption, stopping


class Store:
    """The key-value store, as the client of `jax.distributed` offers it."""

    def __init__(self):
        self.values, self._lock = {}, threading.Lock()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self._lock:
            if key in self.values and not allow_overwrite:
                raise RuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value

    def key_value_dir_get(self, key):
        with self._lock:
            return [(name, value) for name, value in self.values.items() if name.startswith(key)]


class Flaky(Store):
    """A store of which calls fail, before or after they had their effect."""

    def __init__(self, seed, share=0.3):
        super().__init__()
        self._rng, self._share = random.Random(seed), share

    def _maybe(self):
        if self._rng.random() < self._share:
            raise RuntimeError("UNAVAILABLE: the connection was reset")

    def key_value_set(self, key, value, allow_overwrite=False):
        self._maybe()
        super().key_value_set(key, value, allow_overwrite)
        self._maybe()

    def key_value_dir_get(self, key):
        self._maybe()
        return super().key_value_dir_get(key)


class Process(threading.Thread):
    """One process: `turns` polls at its own pace, looked after by a second thread."""

    def __init__(self, store, index, count, *, turns=400, seed=0, said=None):
        super().__init__()
        self.agreement = stopping.Agreement(store, index, count, say=(said if said is not None else []).append)
        self.turns, self.stopped_at, self._rng = turns, None, random.Random(f"{seed} {index}")
        self.polls = 0

    def look_often(self, over):
        while not over.is_set():
            with contextlib.suppress(RuntimeError):  # as the agreement's own thread does
                self.agreement.look()
            time.sleep(self._rng.uniform(0, 0.004))

    def run(self):
        over = threading.Event()
        looker = threading.Thread(target=self.look_often, args=(over,))
        looker.start()
        for _ in range(self.turns):
            self.polls += 1
            if self.agreement.poll():
                self.stopped_at = self.polls
                break
            time.sleep(self._rng.uniform(0, 0.001))
        self.agreement.close()
        over.set()
        looker.join()


def together(processes, ask=lambda: None):
    for process in processes:
        process.start()
    ask()
    for process in processes:
        process.join(30)
        assert not process.is_alive()
    return [process.stopped_at for process in processes]


@pytest.mark.parametrize("seed", range(5))
def test_all_stop_at_the_same_poll_whoever_was_asked_and_when(seed):
    store, rng = Store(), random.Random(seed)
    processes = [Process(store, index, 4, seed=seed) for index in range(4)]

    def ask():
        time.sleep(rng.uniform(0, 0.1))
        for process in rng.sample(processes, rng.randint(1, 4)):
            process.agreement.request()

    stopped = together(processes, ask)
    assert len(set(stopped)) == 1 and stopped[0] is not None


@pytest.mark.parametrize("seed", range(5))
def test_asked_near_the_end_all_stop_or_none_does_and_nobody_waits(seed):
    """A process that has polled for the last time has told how often: the others do not stop before that."""
    store, rng = Store(), random.Random(seed)
    processes = [Process(store, index, 3, turns=30, seed=seed) for index in range(3)]

    def ask():
        time.sleep(rng.uniform(0.0, 0.03))
        processes[0].agreement.request()

    assert len(set(together(processes, ask))) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_store_that_fails_now_and_then_loses_no_request_and_splits_nobody(seed):
    store = Flaky(seed)
    processes = [Process(store, index, 3, turns=3000, seed=seed) for index in range(3)]

    def ask():
        time.sleep(random.Random(seed).uniform(0, 0.05))
        processes[seed % 3].agreement.request()

    stopped = together(processes, ask)
    assert len(set(stopped)) == 1 and stopped[0] is not None


def test_a_process_that_has_answered_polls_no_more_until_it_is_known_where_all_stop():
    """Its answer was read by others, though one call failed: it must not be followed by another poll."""
    store, polled = Store(), []
    one = stopping.Agreement(store, 0, 2, say=polled.append)
    assert [one.poll() for _ in range(10)] == [False] * 10
    store.key_value_set("transformer_jax/stop/0/asked/1", "host")
    fails, get = [True], store.key_value_dir_get

    def fail_once(key):
        if key.endswith("polls/") and fails and fails.pop():
            raise RuntimeError("UNAVAILABLE")
        return get(key)

    store.key_value_dir_get = fail_once
    looker = threading.Thread(target=one.look)
    looker.start()
    while "transformer_jax/stop/0/polls/0" not in store.values:
        time.sleep(0.001)
    poller = threading.Thread(target=lambda: polled.append(one.poll()))
    poller.start()
    time.sleep(0.2)
    assert polled == [] and not fails and poller.is_alive()
    store.key_value_set("transformer_jax/stop/0/polls/1", "7")
    looker.join(10)
    poller.join(10)
    assert store.values["transformer_jax/stop/0/polls/0"] == "10" and one._stop_at == 11 and True in polled


def test_who_does_not_come_to_know_where_all_stop_ends_as_hung(monkeypatch):
    monkeypatch.setattr(stopping, "_ANSWER", 0.1)
    store, ended = Store(), []
    store.key_value_set("transformer_jax/stop/0/asked/1", "host")
    stopping.Agreement(store, 0, 2, end=ended.append, say=ended.append).look()
    assert ended[-1] == exits.HUNG and "not all said" in ended[-2]


def test_nobody_stops_who_was_not_asked():
    assert together([Process(Store(), 0, 1, turns=50)]) == [None]


def test_a_stop_asked_before_the_first_poll_is_the_first_poll(monkeypatch):
    monkeypatch.setattr(stopping, "PERIOD", 0.01)
    store = Store()
    both = [stopping.Agreement(store, index, 2).start() for index in range(2)]
    both[1].request()
    deadline = time.monotonic() + 10
    while any(one._stop_at is None for one in both) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [one.poll() for one in both] == [True, True]
    assert [one.poll() for one in both] == [True, True], "it stays true"
    for one in both:
        one.close()


def test_the_others_are_told_who_was_asked():
    store, said = Store(), []
    processes = [Process(store, index, 2, said=said if index == 0 else None) for index in range(2)]
    together(processes, processes[1].agreement.request)
    assert len(said) == 1 and "Process 1 on" in said[0] and "all stop together" in said[0]


def test_a_process_that_does_not_come_to_the_agreed_place_ends_as_hung():
    store, ended = Store(), []
    one = stopping.Agreement(store, 0, 2, patience=-1.0, end=ended.append, say=ended.append)
    store.key_value_set("transformer_jax/stop/0/asked/1", "host")
    store.key_value_set("transformer_jax/stop/0/polls/1", "7")
    one.look()  # agrees
    one.look()
    assert ended[-1] == exits.HUNG and "agreed place" in ended[-2]


def test_a_process_that_hangs_is_heard_by_the_others_and_not_by_itself():
    store, heard = Store(), []
    both = [stopping.Agreement(store, index, 2) for index in range(2)]
    for index, one in enumerate(both):
        one.hung = lambda said, index=index: heard.append((index, said))
    both[1].tell("I stand still.")
    for one in both:
        one.look()
    assert heard == [(0, "I stand still.")]


def test_listening_of_several_processes_is_to_all_of_them(monkeypatch):
    store = Store()
    monkeypatch.setattr(stopping, "_client", lambda: (store, 1, 2))
    monkeypatch.setattr(stopping, "PERIOD", 0.01)
    other = stopping.Agreement(store, 0, 2, topic=f"transformer_jax/stop/{stopping._topics + 1}/").start()
    with preemption.listen() as stop:
        assert isinstance(stop, preemption.Together) and not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        with pytest.raises(preemption.Preempted):
            while time.monotonic() < deadline:
                with stop.interruptible():  # nothing interrupts here: it is polled
                    time.sleep(0.001)
        polls = stop.polls
    while not other.poll():
        assert time.monotonic() < deadline
    other.close()
    assert other._polls == polls


def test_a_process_alone_agrees_with_nobody():
    with stopping.agreement() as made:
        assert made is None
