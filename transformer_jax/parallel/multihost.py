"""Many processes as one computation: finding each other, agreeing, waiting no longer than said.

Without a cluster around it a process is alone and nothing here costs anything: `index()` is 0, `count()` is 1, what is
gathered or agreed is its own. What is said here goes through the coordination service of `jax.distributed`, not through
the devices: it needs no compile, shapes may differ, and a wait ends with the names of those who did not come.
"""

import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import jax

from transformer_jax import types
from transformer_jax.parallel import detection, devices

PeerLost = detection.PeerLost

WAIT_VARIABLE = "TRANSFORMER_JAX_WAIT"
"""Seconds to wait for missing processes at the start."""
HEARTBEAT_VARIABLE = "TRANSFORMER_JAX_HEARTBEAT"
"""Seconds of silence after which a process counts as dead, and the others end with exit code 134."""

_WAIT, _HEARTBEAT, _SHUTDOWN = 300.0, 100.0, 15
_IN_STEP = 900.0
"""Seconds that processes may be apart where they meet: one may compile or open its data while the others wait."""


_board: Any = None
"""What is shared with the processes this one has joined."""


def start(how: str | None = None, *, timeout: float | None = None, heartbeat: float | None = None) -> None:
    """Join the other processes of this run, before any device is touched.

    `how` is `auto` (what the scheduler's environment says), `off`, or HOST:PORT,COUNT,INDEX with the address of process
    0; by default what TRANSFORMER_JAX_PROCESSES says, or `auto`. Raises `PeerLost` when someone is missing after
    `timeout` seconds (default 300), with who it is; `InputError` when they do not fit together. A process that is
    silent for `heartbeat` seconds (default 100) ends the others with exit code 134.
    """
    global _board
    how = how or os.environ.get(detection.VARIABLE) or detection.AUTO
    place = detection.parse(how)
    if _board is not None or how == detection.OFF:
        return
    timeout = _seconds(timeout, WAIT_VARIABLE, _WAIT)
    if how == detection.AUTO:
        place = _find(timeout)
    if place is None or place.count == 1:
        return
    known = detection.hosts(os.environ, place.count)
    from transformer_jax.parallel import exchange, rollcall  # not above: a process alone does without

    found = rollcall.hold(place, timeout, known=known)
    # JAX's own handler would swallow SIGTERM until `training.preemption` listens, and then miss it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        place.address,
        place.count,
        place.index,
        local_device_ids=place.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=60,
        heartbeat_timeout_seconds=max(int(_seconds(heartbeat, HEARTBEAT_VARIABLE, _HEARTBEAT)), 1),
        shutdown_timeout_seconds=_SHUTDOWN,
    )
    _board = exchange.Board(place.index, found)
    _board.watch()
    check_devices()
    check_index()
    from transformer_jax.parallel import connecting

    connecting.processes()


def index() -> int:
    """Which of the processes this is. Touches no device."""
    if _board is not None:
        return _board.index
    return jax.process_index() if jax.distributed.is_initialized() else 0


def count() -> int:
    """How many processes there are. Touches no device."""
    if _board is not None:
        return len(_board.hosts)
    return jax.process_count() if jax.distributed.is_initialized() else 1


def main() -> bool:
    """Whether this is the process that writes and speaks: the first, or the only one."""
    return index() == 0


def hosts() -> tuple[str, ...]:
    """The machine of every process."""
    return _board.hosts if _board is not None else (socket.gethostname(),) * count()


def gather(value: Any, *, timeout: float = _IN_STEP) -> list[Any]:
    """The `value` of every process in their order, on every process.

    A value is made of dicts with names as keys, lists, plain values and numpy arrays, whose shapes may differ between
    processes; tuples come back as lists. All processes must call this the same number of times. Raises `PeerLost` after
    `timeout` seconds with the processes that did not come.
    """
    if count() == 1:
        return [value]
    return _joined().gather(value, timeout)


def broadcast(value: Any, *, timeout: float = _IN_STEP) -> Any:
    """The `value` of process 0, on every process; otherwise as `gather`."""
    return value if count() == 1 else gather(value if main() else None, timeout=timeout)[0]


def barrier(name: str, *, timeout: float = _IN_STEP) -> None:
    """Wait until every process is at the same `name`; `PeerLost` names those that do not come."""
    places = gather(name, timeout=timeout)
    if len(set(places)) > 1:
        listing = ", ".join(f"process {index} at {place!r}" for index, place in enumerate(places))
        raise RuntimeError(f"All processes must meet at the same place: {listing}.")


def agree(facts: Mapping[str, str | int | float], *, timeout: float = _IN_STEP) -> None:
    """`InputError` on every process unless all hold the same `facts`: which process is odd, its host, the values."""
    told = gather(dict(facts), timeout=timeout)
    if len(told) == 1:
        return
    from transformer_jax.parallel import odd

    found = odd.facts(told, hosts())
    if found:
        raise types.InputError(found)


def check_devices() -> None:
    """`InputError` when the tasks of this machine take fewer GPUs than it gave them: one task on an 8-GPU node."""
    if jax.default_backend() == "gpu":
        here = hosts().count(hosts()[index()])
        devices.check_tasks(os.environ, tasks=here, seen=jax.local_device_count(), host=hosts()[index()])


def check_index() -> None:
    """`InputError` when JAX gives the devices of this process another number: on TPUs the runtime numbers them."""
    own = jax.process_index()
    if own != index():
        raise types.InputError(
            f"A process must have the index that its devices have: this one was told {index()} (on {hosts()[index()]}),"
            f" its {jax.default_backend()} devices are those of process {own}. Leave it to the scheduler"
            " (--processes=auto), or give each machine the index of its place in the slice (TPU_WORKER_ID)."
        )


def stop(code: int = 0, *, others: int | None = None, patience: float = 600.0) -> None:
    """Leave the processes of this run in order, with the exit code this one is about to return.

    With `others` the rest, unless they fail by themselves, is ended with that code within seconds: nothing waits for
    what cannot come. Where they do not leave in `patience` seconds this process ends here with its `code`: JAX itself
    would abort with another.
    """
    global _board
    if _board is None:
        return
    if others is not None:
        _board.fail(code, others)
    if _board.meet_to_leave(patience):
        jax.distributed.shutdown()
        _board = None
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def told_to_end(timeout: float = 3.0) -> int | None:
    """The exit code a failed process asks the others to end with: why this one lost it. `None` if none says so."""
    if _board is None:
        return None
    try:
        return _board.failure(timeout)
    except PeerLost:
        return None


def end(code: int) -> NoReturn:
    """End this process now, from whatever thread, its main one may wait for ever: in order if the others end too."""
    if _board is not None:
        _board.end(code)
    os._exit(code)


def said_by_main(text: str, *, timeout: float = 5.0) -> bool:
    """Whether process 0 says `text` too, so that this one, another, need not repeat it."""
    if _board is None:
        return False
    if main():
        _board.post("said", text)
        return False
    return _board.read("said", timeout) == text


def _joined() -> Any:
    """The board of this run, made here where someone else called `jax.distributed.initialize`."""
    global _board
    if _board is None:
        from transformer_jax.parallel import exchange

        _board = exchange.Board(jax.process_index(), [f"host of process {other}" for other in range(count())])
    return _board


def _seconds(given: float | None, variable: str, default: float) -> float:
    """A duration from the argument, else the environment, else the default."""
    said = os.environ.get(variable)
    if given is None and said:
        try:
            given = float(said)
        except ValueError:
            given = -1.0
        if not given > 0:
            raise types.InputError(f"{variable} must be a number of seconds above 0: it is {said!r}.")
    return default if given is None else given


def _find(timeout: float) -> detection.Place | None:
    """Where the scheduler put this process, or `None` when it is alone."""
    name = detection.cluster()
    if name is None:
        if warning := detection.alone_in_a_job():
            print(f"transformer-jax: {warning}", file=sys.stderr)
        return None
    try:
        address, count, index, local = _ask_jax(timeout)
    except Exception as error:  # whatever a scheduler's client raises
        raise types.InputError(_unclear(name, str(error))) from error
    if address is None or count is None or index is None:
        raise types.InputError(_unclear(name, "jax does not recognise it here"))
    return detection.Place(address, count, index, detection.local_devices(os.environ, local[0] if local else None))


def _unclear(name: str, reason: str) -> str:
    hint = ' Install its client with pip install "jax[k8s]", or give' if name == "Kubernetes" else " Give"
    return (
        f"{name} started this process as one of several, but how to reach the others is not known: {reason}."
        f"{hint} --processes=HOST:PORT,COUNT,INDEX, or --processes=off to run alone."
    )


def _ask_jax(timeout: float) -> tuple[str | None, int | None, int | None, list[int] | None]:
    """Address, count, index and local index from `jax.distributed`'s own detection.

    Private, because jax offers it only as a part of connecting, which ends the process where a peer is missing.
    """
    from jax._src import clusters

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(address, None, None, None, None, int(timeout))
    address, count, index, local = found
    return address, count, index, None if local is None else list(local)
