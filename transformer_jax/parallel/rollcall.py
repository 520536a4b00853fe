"""The processes find each other before JAX connects them: process 0 counts who comes, and says who does not.

`jax.distributed.initialize` ends a process from C++ when a peer is missing, without saying which. So process 0 listens
first at the very address its coordination service will use; every other process reports its index and host there, and
all hear the same answer: the hosts of everybody, or who is missing after how long.
"""

import contextlib
import json
import selectors
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from transformer_jax import types
from transformer_jax.parallel import detection

MARK = "transformer_jax"
"""What every line says, so that whatever else knocks at the port is not counted."""

_FIRST_WORD, _NEXT_WORD = 10.0, 30.0
_LONGEST_LINE = 65536


def hold(place: detection.Place, timeout: float, *, known: Sequence[str] = ()) -> list[str]:
    """The host name of every process, when all are there; returns on all of them at nearly the same time.

    Raises `PeerLost` after `timeout` seconds with the indices that are missing (and their hosts, where `known` has
    them), `InputError` when processes disagree on how many they are or two have the same index.
    """
    me = {"mark": MARK, "index": place.index, "count": place.count}
    me |= {"host": socket.gethostname(), "id": uuid.uuid4().hex}
    answer = _count(place, me, timeout, known) if place.index == 0 else _report(place, me, timeout)
    if "refused" in answer:
        raise types.InputError(answer["refused"])
    if "missing" in answer:
        raise detection.PeerLost(answer["missing"])
    return answer["hosts"]


def missing_text(absent: Sequence[int], count: int, seconds: float, known: Sequence[str] = ()) -> str:
    """Who did not come: `processes 2 and 3 of 4 (hosts b, c) did not come within 300 s`."""
    names = " and ".join(filter(None, [", ".join(map(str, absent[:-1])), str(absent[-1])]))
    machines = sorted({known[index] for index in absent if index < len(known)})
    where = f" ({'hosts' if len(machines) > 1 else 'host'} {', '.join(machines)})" if machines else ""
    return f"process{'es' if len(absent) > 1 else ''} {names} of {count}{where} did not come within {seconds:g} s"


def _count(place: detection.Place, me: Mapping[str, Any], timeout: float, known: Sequence[str]) -> dict[str, Any]:
    """Process 0: collect a report from everybody, then answer all of them."""
    there: dict[int, tuple[Mapping[str, Any], socket.socket | None]] = {0: (me, None)}
    begun, refused = time.monotonic(), None
    say_at = _FIRST_WORD
    with _listener(place) as server, contextlib.closing(_Callers(server)) as callers:
        while len(there) < place.count and not refused:
            waited = time.monotonic() - begun
            absent = [index for index in range(place.count) if index not in there]
            if waited >= timeout:
                break
            if waited >= say_at:
                _say(f"waiting for {missing_text(absent, place.count, waited, known)}".replace("did not come", "still"))
                say_at += _NEXT_WORD
            for report, connection in callers.reports(min(1.0, timeout - waited)):
                if report is None:  # it came and went
                    there = {index: caller for index, caller in there.items() if caller[1] is not connection}
                else:
                    refused = refused or _objection(place, report, there)
                    there.setdefault(report["index"], (report, connection))
        answer = _answer(place, there, refused, timeout, known)
        for _, connection in there.values():
            _send(connection, answer)
        for connection in callers.open:  # whoever came twice or from another run hears it too
            _send(connection, answer)
        callers.drain()
    return answer


def _answer(
    place: detection.Place,
    there: Mapping[int, tuple[Mapping[str, Any], Any]],
    refused: str | None,
    timeout: float,
    known: Sequence[str],
) -> dict[str, Any]:
    if refused:
        return {"refused": refused}
    absent = [index for index in range(place.count) if index not in there]
    if absent:
        remedy = f"Start it with the address {place.address}, or see its own output for why it did not."
        return {
            "missing": f"Every process must be there: {missing_text(absent, place.count, timeout, known)}. {remedy}"
        }
    return {"hosts": [there[index][0]["host"] for index in range(place.count)]}


def _objection(place: detection.Place, report: Mapping[str, Any], there: Mapping[int, Any]) -> str | None:
    """Why the processes cannot be one run, if they cannot."""
    index, host = report["index"], report["host"]
    if report["count"] != place.count:
        return (
            f"All processes must be told the same number of them: process 0 ({there[0][0]['host']}) was told"
            f" {place.count}, process {index} ({host}) {report['count']}."
        )
    if index in there and there[index][0]["id"] != report["id"]:
        other = there[index][0]["host"]
        return f"Every process needs its own index: two say they are process {index}, on {other} and on {host}."
    return None


def _report(place: detection.Place, me: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Another process: reach process 0, hear what it says."""
    begun = time.monotonic()
    reached, reason, say_at = False, "", _FIRST_WORD
    while (left := timeout - (time.monotonic() - begun)) > 0:
        if timeout - left >= say_at:
            _say(
                f"process {place.index} waits for process 0 at {place.address} since {timeout - left:.0f} s ({reason})"
            )
            say_at += _NEXT_WORD
        try:
            with socket.create_connection((place.host, place.port), timeout=min(left, 5.0)) as connection:
                reached = True
                _send(connection, me)
                connection.settimeout(left + 5.0)  # process 0 may have begun to wait after this one
                line = connection.makefile("rb").readline(_LONGEST_LINE)
            answer = json.loads(line)
            return answer if isinstance(answer, dict) else {}
        except (OSError, ValueError) as error:  # not there yet, a name not yet known, or not our process 0
            reason = str(error) or "no answer"
            time.sleep(0.1 if timeout - left < 5 else 0.5)
    name = f"process 0 of {place.count} at {place.address}"
    failure = "was reached but still waited for others after" if reached else "was not reached within"
    return {"missing": f"Every process must be there: {name} {failure} {timeout:g} s ({reason})."}


def _listener(place: detection.Place) -> socket.socket:
    """A server where the coordination service will be; on this machine only if the address says so."""
    try:
        if place.host in ("localhost", "127.0.0.1"):
            return socket.create_server(("127.0.0.1", place.port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", place.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", place.port))
    except OSError as error:
        raise types.InputError(
            f"Process 0 must be able to listen at port {place.port}: {error.strerror}. Choose another port."
        ) from None


class _Callers:
    """Everybody who has connected, read without waiting for any single one."""

    def __init__(self, server: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ)
        self._server = server
        self._heard: dict[socket.socket, bytes] = {}

    @property
    def open(self) -> list[socket.socket]:
        return list(self._heard)

    def reports(self, seconds: float) -> list[tuple[dict[str, Any] | None, socket.socket]]:
        """The reports that came in within `seconds`; `None` from those who left."""
        found = []
        for key, _ in self._selector.select(max(seconds, 0)):
            if key.fileobj is self._server:
                connection, _ = self._server.accept()
                self._selector.register(connection, selectors.EVENT_READ)
                self._heard[connection] = b""
                continue
            connection: Any = key.fileobj
            report = self._read(connection)
            if report is not None or connection not in self._heard:
                found.append((report, connection))
        return found

    def drain(self) -> None:
        """Let the others close first, so that the port is free at once for the service that follows."""
        until = time.monotonic() + 1.0
        while self._heard and time.monotonic() < until:
            self.reports(0.1)

    def close(self) -> None:
        for connection in self.open:
            connection.close()
        self._selector.close()

    def _read(self, connection: socket.socket) -> dict[str, Any] | None:
        try:
            piece = connection.recv(4096)
        except OSError:
            piece = b""
        heard = self._heard[connection] = self._heard[connection] + piece
        if not piece or len(heard) > _LONGEST_LINE:
            self._selector.unregister(connection)
            del self._heard[connection]
            connection.close()
            return None
        if not heard.endswith(b"\n"):
            return None
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            report = json.loads(heard)
            if report.get("mark") == MARK and isinstance(report["index"], int) and report["index"] >= 0:
                return report
        return None


def _send(connection: socket.socket | None, message: Mapping[str, Any]) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):  # it has gone: it will be missed by what follows
            connection.sendall(json.dumps(message).encode() + b"\n")


def _say(text: str) -> None:
    print(f"transformer-jax: {text}", file=sys.stderr, flush=True)
