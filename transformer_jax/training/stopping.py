"""Where the processes of a run stop together, when one of them was asked to.

A thread of each looks at the key-value store of `jax.distributed` twice a second. JAX has such a thing of its own
(`multihost_utils.reached_preemption_sync_point`). It is not used: whoever sets a handler last, it or Python, has the
signal and the other never hears of it; it knows no Ctrl-C; and a process that has left never answers it.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, runtime_checkable

from transformer_jax.parallel import multihost
from transformer_jax.training import exits

PERIOD = 0.5
"""Seconds between two looks."""
PATIENCE = 600.0
"""Seconds from the agreement on where to stop until all have to be there."""
_ANSWER = 60.0  # seconds for each to say how far it is: a thread answers, so it is quick or dead
_TRIES = 5  # to say so at the end, when nobody may have asked


@runtime_checkable
class Store(Protocol):
    """What is used of the client of `jax.distributed`. A folder's entries come with their whole keys."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...
    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]: ...


class Agreement:
    """One process's part in it. `topic` is the same on all of them, and used once.

    `poll` is called at the same places everywhere. Once one process was asked to stop (`request`), it becomes true at
    the same call on all of them, the first that none has passed, and stays true.
    """

    def __init__(
        self,
        store: Store,
        index: int,
        count: int,
        *,
        topic: str = "transformer_jax/stop/0/",
        patience: float = PATIENCE,
        say: Callable[[str], Any] = lambda text: os.write(2, f"\n{text}\n".encode()),
        end: Callable[[int], Any] = multihost.end,
    ) -> None:
        self._store, self._index, self._count, self._topic = store, index, count, topic
        self._patience, self._say, self._end = patience, say, end
        self._lock = threading.Lock()
        self._polls = 0
        self._stop_at: int | None = None
        self._requested, self._answered = False, False
        self._settled = 0.0
        self.hung: Callable[[str], None] = lambda said: None
        """What to do when another process says that it hangs: all of them do, and each knows its own part of it."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stop together", daemon=True)

    def start(self) -> "Agreement":
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

    def tell(self, message: str) -> None:
        """Says to the others that this process hangs. From any thread."""
        self._set(f"hung/{self._index}", message)

    def close(self) -> None:
        """This process polls no more. The others need not wait for it to say how far it is."""
        self._closed.set()
        with self._lock:
            for attempt in range(_TRIES):
                with contextlib.suppress(Exception):
                    self._answer()
                    break
                time.sleep(0.05 * 2**attempt)
        if self._thread.is_alive():
            self._thread.join(2 * PERIOD)

    def look(self) -> None:
        """One look of the thread: does one hang, is one asked to stop, does this one come to where all stop?"""
        for key, said in self._store.key_value_dir_get(f"{self._topic}hung/"):
            if key.rsplit("/", 1)[-1] != str(self._index):
                self.hung(said)
        if self._requested:
            self._set(f"asked/{self._index}", socket.gethostname())
            self._requested = False  # after it: what could not be passed on is passed on at the next look
        if self._stop_at is None:
            asked = self._store.key_value_dir_get(f"{self._topic}asked/")
            if asked:
                self._settle(asked[0])
        elif self._polls < self._stop_at and time.monotonic() - self._settled > self._patience:
            self._say(f"Asked to stop, but not at the agreed place after {self._patience:.0f} s: nothing was saved.")
            self._end(exits.HUNG)

    def _settle(self, asked: tuple[str, str]) -> None:
        """All say how many polls they have passed, none passes another one meanwhile, and all stop at the next.

        An answer binds, for the others may have read it: not even one that seems to have failed is followed by a poll
        before it is known where all stop. Who does not come to know that ends.
        """
        with self._lock:  # the main thread waits here if it polls now
            wait, deadline = 0.02, time.monotonic() + _ANSWER
            while (answers := self._answers()) is None:
                if time.monotonic() > deadline:
                    self._say(f"Asked to stop, but not all said within {_ANSWER:.0f} s where: nothing was saved.")
                    self._end(exits.HUNG)
                    return
                time.sleep(wait)
                wait = min(2 * wait, 0.5)
            self._stop_at = max(answers) + 1
            self._settled = time.monotonic()
        index = asked[0].rsplit("/", 1)[-1]
        if index != str(self._index):
            self._say(f"Process {index} on {asked[1]} was asked to stop: all stop together, after a save.")

    def _answers(self) -> list[int] | None:
        """How many polls each has passed, None as long as not all have said so or the store does not answer."""
        with contextlib.suppress(Exception):
            self._answer()
            told = self._store.key_value_dir_get(f"{self._topic}polls/")
            return [int(polls) for _, polls in told] if len(told) == self._count else None
        return None

    def _answer(self) -> None:
        if not self._answered:
            self._set(f"polls/{self._index}", str(self._polls))
            self._answered = True

    def _set(self, key: str, value: str) -> None:
        self._store.key_value_set(f"{self._topic}{key}", value, allow_overwrite=True)

    def _watch(self) -> None:
        while not self._closed.wait(PERIOD):
            with contextlib.suppress(Exception):  # where the store is gone, `jax.distributed` ends the process
                self.look()


_topics = 0


@contextlib.contextmanager
def agreement() -> Generator[Agreement | None, None, None]:
    """Within this context an `Agreement` with the other processes, or None for a process that is alone.

    All processes come here equally often.
    """
    global _topics
    found = _client()
    if found is None:
        yield None
        return
    _topics += 1
    made = Agreement(*found, topic=f"transformer_jax/stop/{_topics}/").start()
    try:
        yield made
    finally:
        made.close()


def _client() -> tuple[Store, int, int] | None:
    """The store, which `jax.distributed` offers in no public way, the index of this process, how many there are."""
    if multihost.count() == 1:
        return None
    from jax._src import distributed

    client: Any = distributed.global_state.client
    return client, multihost.index(), multihost.count()
