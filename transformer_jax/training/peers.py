"""What the processes of a run tell each other beside arithmetic: where to stop together, and that one cannot go on.

A thread of each looks at the key-value store of `jax.distributed` twice a second. JAX has a stop of its own there
(`multihost_utils.reached_preemption_sync_point`). It is not used, because it takes SIGTERM away from Python, knows
neither Ctrl-C nor a process that failed, and a stop asked for when one of them has already left is never answered.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from transformer_jax.parallel import multihost
from transformer_jax.training import exits

PERIOD = 0.5
"""Seconds between two looks."""
GRACE = 5.0
"""Seconds a process has to end by itself once another one has said that it cannot go on."""
PATIENCE = 600.0
"""Seconds from the agreement on where to stop until all have to be there."""
_ANSWER = 60.0  # seconds for each to say how far it is: a thread answers, so it is quick or dead
_ENDED, _GONE = "transformer_jax/ended/", "transformer_jax/gone/"
_SYMMETRIC = (exits.OK, exits.DIVERGED, exits.PREEMPTED)
"""Codes that all processes end with at the same step: nobody has to be told."""


@runtime_checkable
class Store(Protocol):
    """What is used of the client of `jax.distributed`. A folder's entries come with their whole keys."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...
    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]: ...


class Peers:
    """The other processes, as one process sees them. `topic` is the same on all, and used once.

    `poll` is called at the same places everywhere; once one process was asked to stop (`request`), it becomes true at
    the same call on all of them: the first that none has passed.
    """

    def __init__(
        self,
        store: Store,
        index: int,
        count: int,
        *,
        topic: str = "transformer_jax/stop/0/",
        patience: float = PATIENCE,
        grace: float = GRACE,
        say: Callable[[str], None] = lambda text: _say(text),
        end: Callable[[int], Any] = multihost.end,
    ) -> None:
        self._store, self._index, self._count, self._topic = store, index, count, topic
        self._patience, self._grace, self._say, self._end = patience, grace, say, end
        self._lock = threading.Lock()
        self._polls, self._stop_at = 0, None
        self._requested, self._answered = False, False
        self._settled_at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)

    def start(self) -> "Peers":
        """Begins to look."""
        self._thread.start()
        return self

    def poll(self) -> bool:
        """Whether all stop here."""
        with self._lock:
            self._polls += 1
            return self._stop_at is not None and self._polls >= self._stop_at

    def request(self) -> None:
        """Asks all to stop. Safe to call from a signal handler: the thread passes it on."""
        self._requested = True

    def close(self) -> None:
        """This process polls no more. The others need not wait for it to say how far it is."""
        self._closed.set()
        with self._lock, contextlib.suppress(Exception):
            self._answer()
        if self._thread.is_alive():
            self._thread.join(2 * PERIOD)

    def look(self) -> None:
        """One look of the thread: has one failed, is one asked to stop, do all come to where they stop?"""
        for key, said in self._store.key_value_dir_get(_ENDED):
            if key != f"{_ENDED}{self._index}":
                self._follow(said)
        if self._requested:
            self._requested = False
            self._set(f"{self._topic}asked/{self._index}", socket.gethostname())
        if self._stop_at is None:
            asked = self._store.key_value_dir_get(f"{self._topic}asked/")
            if asked:
                self._settle(asked[0])
        elif self._polls < self._stop_at and time.monotonic() - self._settled_at > self._patience:
            self._say(f"Asked to stop, but not at the agreed place after {self._patience:.0f} s: nothing was saved.")
            self._end(exits.HUNG)

    def _settle(self, asked: tuple[str, str]) -> None:
        """All say how many polls they have passed, none passes another one meanwhile, and all stop at the next."""
        with self._lock:  # the main thread waits here if it polls now
            self._answer()
            wait, waited = 0.02, 0.0
            while len(answers := self._store.key_value_dir_get(f"{self._topic}polls/")) < self._count:
                if waited > _ANSWER:
                    return  # one is dead: `jax.distributed` finds that out and ends the others
                time.sleep(wait)
                waited, wait = waited + wait, min(2 * wait, 0.5)
            self._stop_at = max(int(polls) for _, polls in answers) + 1
            self._settled_at = time.monotonic()
        index = asked[0].rsplit("/", 1)[-1]
        if index != str(self._index):
            self._say(f"Process {index} on {asked[1]} was asked to stop: all stop together, after a save.")

    def _answer(self) -> None:
        if not self._answered:
            self._answered = True
            self._set(f"{self._topic}polls/{self._index}", str(self._polls))

    def _follow(self, said: str) -> None:
        """Another process has ended: end with its code, whatever the main thread waits for."""
        code, _, message = said.partition(" ")
        if not self._closed.wait(self._grace):
            self._say(f"Ending, because {message}")
            gone(self._store, self._index)
            self._end(int(code))

    def _set(self, key: str, value: str) -> None:
        self._store.key_value_set(key, value, allow_overwrite=True)

    def _watch(self) -> None:
        while not self._closed.wait(PERIOD):
            with contextlib.suppress(Exception):  # a store that is gone ends the process from within jax.distributed
                self.look()


_topics = 0


def join() -> Peers | None:
    """The peers of this process, watched until `close`; None when it is alone. All processes join equally often."""
    global _topics
    found = _client()
    if found is None:
        return None
    _topics += 1
    return Peers(*found, topic=f"transformer_jax/stop/{_topics}/").start()


def announce(code: int, message: str) -> None:
    """Tells the other processes that this one ends with `code`, unless all of them do so at the same step."""
    found = _client()
    if found is None or code in _SYMMETRIC:
        return
    store, index, _ = found
    with contextlib.suppress(Exception):
        first = message.strip().splitlines()[0] if message.strip() else "no message"
        text = f"{code} process {index} on {socket.gethostname()} ended with code {code}: {first[:500]}"
        store.key_value_set(f"{_ENDED}{index}", text, allow_overwrite=False)


def leave(code: int, *, patience: float = 3 * GRACE, end: Callable[[int], Any] = os._exit) -> None:
    """The last call of a process that ends with `code`. Where the others cannot know, it ends here and now: waiting for
    them to come to `jax.distributed`'s own farewell would last minutes. The process that holds the store goes last."""
    found = _client()
    if found is None or code in _SYMMETRIC:
        return
    store, index, count = found
    gone(store, index)
    deadline = time.monotonic() + patience
    while index == 0 and time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            if len(store.key_value_dir_get(_GONE)) >= count:
                time.sleep(0.2)  # the last one has said so, and is on its way
                break
        time.sleep(0.1)
    end(code)


def gone(store: Store, index: int) -> None:
    """Says that this process needs the store no more."""
    with contextlib.suppress(Exception):
        store.key_value_set(f"{_GONE}{index}", "", allow_overwrite=True)


def _client() -> tuple[Store, int, int] | None:
    """The store that `jax.distributed` offers in no public way, the index of this process, how many there are."""
    from jax._src import distributed

    state = distributed.global_state
    if state.client is None or state.num_processes is None or state.num_processes < 2:
        return None
    return state.client, state.process_id, state.num_processes


def _say(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())
