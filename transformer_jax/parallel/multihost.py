"""Many processes as one computation: finding each other, agreeing, waiting no longer than said.

Without a cluster around it, a process is alone and nothing here costs anything: `index()` is 0, `count()` is 1, what is
agreed or gathered is its own.
"""

from collections.abc import Mapping
from typing import Any

AUTO, OFF = "auto", "off"
VARIABLE = "TRANSFORMER_JAX_PROCESSES"


class PeerLost(RuntimeError):
    """Another process did not come, or went away. The message names it and how long it was waited for."""


def start(how: str | None = None, *, timeout: float | None = None, heartbeat: float | None = None) -> None:
    """Join the other processes of this run, before any device is touched."""


def index() -> int:
    """Which of the processes this is. Touches no device."""
    return 0


def count() -> int:
    """How many processes there are. Touches no device."""
    return 1


def main() -> bool:
    """Whether this is the process that writes and speaks: the first, or the only one."""
    return index() == 0


def agree(facts: Mapping[str, str | int | float], *, timeout: float | None = None) -> None:
    """`InputError` on every process unless all hold the same `facts`: which process is odd, its host, the values."""


def gather(value: Any, *, timeout: float | None = None) -> list[Any]:
    """The `value` of every process, in their order: a tree of numpy arrays and plain values, shapes may differ."""
    return [value]


def broadcast(value: Any, *, timeout: float | None = None) -> Any:
    """The `value` of process 0."""
    return value


def barrier(name: str, *, timeout: float | None = None) -> None:
    """Wait until every process is here; `PeerLost` after `timeout` seconds, naming those that are not."""


def check_devices() -> None:
    """`InputError` when the scheduler gave this process more devices than JAX sees (one task on an 8-GPU node)."""


def stop() -> None:
    """Leave the others in order; never waits long."""
