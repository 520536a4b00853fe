"""Values and failures passed between processes by the coordination service of `jax.distributed`, every wait bounded.

Process 0 collects what all have posted and posts it as one value, so that a thousand processes cost a thousand short
messages. A wait is made of short ones, so that signals are heard meanwhile.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from transformer_jax.parallel import detection, packing

_ROOT = "transformer_jax"
_SLICE = 1.0
_SMALL = 1 << 20
"""Bytes; what is larger goes through the devices, not through process 0."""

_POLL, _PATIENCE = 2.0, 6.0
"""Seconds between looks for a failed peer, and for this process to fail by itself before it is ended."""
_UNHEARD = 10
"""Looks in a row that fail until the service counts as gone."""


class Board:
    """What the processes of one run write for each other."""

    def __init__(self, index: int, hosts: Sequence[str]) -> None:
        self.index, self.hosts = index, tuple(hosts)
        self._client = _client()
        self._turn = 0
        self._leaving = threading.Event()

    def gather(self, value: Any, timeout: float) -> list[Any]:
        """The value of every process, in their order."""
        own = packing.pack(value)
        self._turn += 1
        small = len(own) <= _SMALL
        told = self._meet(str(self._turn), own if small else str(len(own)).encode(), timeout, large=not small)
        if self.index == 0:
            self._client.key_value_delete(f"{_ROOT}/{self._turn - 1}")  # everybody here has read what was before
        if any(large for large, _ in told):
            return [packing.unpack(piece) for piece in self._through_devices(own, timeout)]
        return [packing.unpack(piece) for _, piece in told]

    def post(self, name: str, text: str) -> None:
        """Written once; who comes second is ignored."""
        try:
            self._client.key_value_set(f"{_ROOT}/{name}", text)
        except jax.errors.JaxRuntimeError:
            pass

    def read(self, name: str, timeout: float) -> str | None:
        """What was posted under `name`, once it is; `None` after `timeout` seconds."""
        found = self._wait(name, time.monotonic() + timeout)
        return None if found is None else found.decode()

    def watch(self) -> None:
        """From now on end this process when another says that it failed, and this one does not by itself."""
        threading.Thread(target=self._watch, name="transformer_jax peers", daemon=True).start()

    def meet_to_leave(self, timeout: float) -> bool:
        """Whether all processes are ready to leave within `timeout` seconds. Nothing is watched after it."""
        self._leaving.set()
        try:
            self._meet("end", b"", timeout, large=False)
        except detection.PeerLost:
            return False
        return True

    def fail(self, code: int, others: int) -> None:
        """Tell the others that this process ends with `code`, and they are to end with `others`."""
        self._leaving.set()
        self.post(
            "failed", json.dumps({"index": self.index, "host": self.hosts[self.index], "code": code, "end": others})
        )

    def failure(self, timeout: float) -> int | None:
        """The code that a process which failed wants this one to end with; `None` when none has, after `timeout`."""
        said = self.read("failed", timeout)
        record = None if said is None else json.loads(said)
        return None if record is None or record["index"] == self.index else int(record["end"])

    def _meet(self, name: str, own: bytes, timeout: float, *, large: bool) -> list[tuple[bool, bytes]]:
        """What every process posted at `name`, and whether that is only the size of something large."""
        deadline = time.monotonic() + timeout
        self._set(f"{name}/{self.index}", bytes([large]) + own)
        if self.index == 0:
            told = [self._wait(f"{name}/{index}", deadline) for index in range(len(self.hosts))]
            absent = [index for index, piece in enumerate(told) if piece is None]
            pieces = [piece for piece in told if piece is not None]
            header = {"absent": absent, "sizes": [len(piece) for piece in pieces]}
            self._set(f"{name}/all", json.dumps(header).encode() + b"\n" + b"".join(pieces))
            answer = {"absent": absent}
        else:
            posted = self._wait(f"{name}/all", deadline + 10.0)  # process 0 may have begun to wait later
            if posted is None:
                raise detection.PeerLost(self._lost([0], timeout))
            line, _, body = posted.partition(b"\n")
            answer = json.loads(line)
            ends = np.cumsum([0, *answer["sizes"]])
            pieces = [body[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        if answer["absent"]:
            raise detection.PeerLost(self._lost(answer["absent"], timeout))
        return [(bool(piece[0]), piece[1:]) for piece in pieces]

    def _through_devices(self, own: bytes, timeout: float) -> list[bytes]:
        """Bytes of every process, of any length, by a collective operation."""
        from jax.experimental import multihost_utils

        sizes = [
            json.loads(piece) for _, piece in self._meet(f"{self._turn}/size", b"%d" % len(own), timeout, large=False)
        ]
        padded = np.zeros(1 << (max(sizes) - 1).bit_length(), np.uint8)  # few lengths, few compiles
        padded[: len(own)] = np.frombuffer(own, np.uint8)
        rows = np.asarray(multihost_utils.process_allgather(padded))
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

    def _set(self, name: str, value: bytes) -> None:
        try:
            self._client.key_value_set_bytes(f"{_ROOT}/{name}", value)
        except jax.errors.JaxRuntimeError as error:
            raise detection.PeerLost(
                f"Process 0 ({self.hosts[0]}) must be there: it cannot be reached ({_line(error)})."
            ) from None

    def _wait(self, name: str, deadline: float) -> bytes | None:
        """What is posted at `name`, or `None` when nothing is at the deadline."""
        while True:
            left = deadline - time.monotonic()
            try:
                return self._client.blocking_key_value_get_bytes(
                    f"{_ROOT}/{name}", max(int(1000 * min(_SLICE, left)), 1)
                )
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    reason = f"it cannot be reached ({_line(error)})"
                    raise detection.PeerLost(f"Process 0 ({self.hosts[0]}) must be there: {reason}.") from None
            if left <= 0:
                return None

    def _lost(self, absent: Sequence[int], timeout: float) -> str:
        names = ", ".join(f"{index} ({self.hosts[index]})" for index in absent)
        who = f"process{'es' if len(absent) > 1 else ''} {names} of {len(self.hosts)}"
        return f"Every process must come to the same place: {who} did not within {timeout:g} s."

    def _watch(self) -> None:
        found, unheard = None, 0
        while found is None:
            if self._leaving.wait(_POLL) or unheard >= _UNHEARD:
                return  # this process leaves, or the service has gone: jax ends it
            try:
                found = self._client.key_value_try_get(f"{_ROOT}/failed")
            except jax.errors.JaxRuntimeError as error:
                unheard = 0 if "NOT_FOUND" in str(error) else unheard + 1
        record = json.loads(found)
        if not self._leaving.wait(_PATIENCE):
            who = f"process {record['index']} ({record['host']})"
            text = f"{who} ended with code {record['code']}, so this one ends too; its own output says why."
            print(f"transformer-jax: {text}", file=sys.stderr)
            self.end(record["end"])

    def end(self, code: int) -> NoReturn:
        """End this process, with the others if they come to leave within ten seconds: process 0 holds the service."""
        if self._leaving.is_set():
            time.sleep(30)  # the main thread is at it
        elif self.meet_to_leave(10.0):
            jax.distributed.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _client() -> Any:
    """The connection of `jax.distributed`; private, because jax offers no bounded wait on it."""
    from jax._src import distributed

    return distributed.global_state.client
