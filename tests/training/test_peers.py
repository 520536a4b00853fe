"""Processes that stop together and end together, without processes: threads and a store in memory."""

import random
import threading
import time

import pytest

from transformer_jax.training import exits, failures, peers, preemption


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


class Process(threading.Thread):
    """One process: `turns` polls at its own pace, looked after by a second thread."""

    def __init__(self, store, index, count, *, turns=400, seed=0, said=None):
        super().__init__()
        self.peers = peers.Peers(store, index, count, say=(said if said is not None else []).append)
        self.turns, self.stopped_at, self._rng = turns, None, random.Random(f"{seed} {index}")
        self.polls = 0

    def look_often(self, over):
        while not over.is_set():
            self.peers.look()
            time.sleep(self._rng.uniform(0, 0.004))

    def run(self):
        over = threading.Event()
        looker = threading.Thread(target=self.look_often, args=(over,))
        looker.start()
        for _ in range(self.turns):
            self.polls += 1
            if self.peers.poll():
                self.stopped_at = self.polls
                break
            time.sleep(self._rng.uniform(0, 0.001))
        self.peers.close()
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
            process.peers.request()

    stopped = together(processes, ask)
    assert len(set(stopped)) == 1 and stopped[0] is not None


@pytest.mark.parametrize("seed", range(5))
def test_asked_near_the_end_all_stop_or_none_does_and_nobody_waits(seed):
    """A process that has polled for the last time has told how often: the others do not stop before that."""
    store, rng = Store(), random.Random(seed)
    processes = [Process(store, index, 3, turns=30, seed=seed) for index in range(3)]

    def ask():
        time.sleep(rng.uniform(0.0, 0.03))
        processes[0].peers.request()

    assert len(set(together(processes, ask))) == 1


def test_nobody_stops_who_was_not_asked():
    assert together([Process(Store(), 0, 1, turns=50)]) == [None]


def test_a_stop_asked_before_the_first_poll_is_the_first_poll():
    store = Store()
    processes = [Process(store, index, 2) for index in range(2)]
    processes[1].peers.request()
    lookers = [threading.Thread(target=process.peers.look) for process in (processes[1], processes[0])]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join(10)
    assert [process.peers.poll() for process in processes] == [True, True]
    assert [process.peers.poll() for process in processes] == [True, True], "it stays true"


def test_the_others_are_told_who_was_asked():
    store, said = Store(), []
    processes = [Process(store, index, 2, said=said if index == 0 else None) for index in range(2)]
    together(processes, processes[1].peers.request)
    assert len(said) == 1 and "Process 1 on" in said[0] and "all stop together" in said[0]


def test_a_process_that_does_not_come_to_the_agreed_place_ends_as_hung():
    store, ended = Store(), []
    one = peers.Peers(store, 0, 2, patience=-1.0, end=ended.append, say=ended.append)
    store.key_value_set("transformer_jax/stop/0/asked/1", "host")
    store.key_value_set("transformer_jax/stop/0/polls/1", "7")
    one.look()  # agrees
    one.look()
    assert ended[-1] == exits.HUNG and "agreed place" in ended[-2]


@pytest.fixture
def store(monkeypatch):
    made = Store()
    monkeypatch.setattr(peers, "_client", lambda: (made, 1, 2))
    return made


def test_a_process_that_fails_ends_the_others_with_its_code_and_its_message(store):
    ended, said = [], []
    other = peers.Peers(store, 0, 2, grace=0.01, end=ended.append, say=said.append)
    peers.announce(exits.BAD_INPUT, "InputError: Bad image, example 3.\nmore")
    other.look()
    assert ended == [exits.BAD_INPUT]
    assert "process 1 on" in said[0] and "InputError: Bad image, example 3." in said[0] and "more" not in said[0]


def test_a_process_that_ends_by_itself_meanwhile_is_left_alone(store):
    ended = []
    other = peers.Peers(store, 0, 2, grace=5.0, end=ended.append, say=ended.append)
    peers.announce(exits.FAILED, "OSError: no")
    threading.Timer(0.05, other.close).start()
    start = time.monotonic()
    other.look()
    assert ended == [] and time.monotonic() - start < 4


@pytest.mark.parametrize("code", [exits.OK, exits.PREEMPTED, exits.DIVERGED])
def test_what_all_do_at_the_same_step_is_not_announced(store, code):
    peers.announce(code, "all of us")
    peers.leave(code, end=lambda code: pytest.fail("the others wait for this one at the farewell"))
    assert store.values == {}


def test_leaving_with_an_error_is_at_once_but_for_the_process_that_holds_the_store(store, monkeypatch):
    ended = []
    peers.leave(exits.FAILED, end=ended.append)
    assert ended == [exits.FAILED]
    monkeypatch.setattr(peers, "_client", lambda: (store, 0, 2))
    peers.leave(exits.FAILED, end=ended.append)  # the other one has gone
    assert ended == [exits.FAILED] * 2
    monkeypatch.setattr(peers, "_client", lambda: (store, 0, 3))
    start = time.monotonic()
    peers.leave(exits.FAILED, patience=0.3, end=ended.append)  # a third one never says so
    assert len(ended) == 3 and time.monotonic() - start >= 0.3


def test_listening_tells_the_others_of_an_error_and_not_of_a_stop(store):
    with pytest.raises(OSError), preemption.listen() as stop:
        assert isinstance(stop, preemption.Together)
        raise OSError("the disk")
    assert store.values["transformer_jax/ended/1"].startswith("1 process 1 on")
    store.values.clear()
    with pytest.raises(preemption.Preempted), preemption.listen():
        raise preemption.Preempted
    with pytest.raises(failures.Diverged), preemption.listen():
        raise failures.Diverged("all")
    assert not any(key.startswith("transformer_jax/ended/") for key in store.values)


def test_a_process_alone_joins_nobody():
    assert peers.join() is None
    peers.leave(exits.FAILED)  # and ends where it ends
