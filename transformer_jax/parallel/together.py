"""Work that several processes do as one: by the first for all, or by each, and what fails for one fails for all.

An error of one process alone would leave the others waiting for it. With one process each of these is a plain call.
"""

from collections.abc import Callable
from typing import TypeVar, cast

from transformer_jax import types
from transformer_jax.parallel import multihost

T = TypeVar("T")


def by_first(work: Callable[[], T]) -> T:
    """What process 0 makes of `work()`, on every process; its `InputError` too. Others do not call it.

    The result is what `multihost.broadcast` takes: numpy arrays and plain values in plain containers.
    """
    if multihost.count() == 1:
        return work()
    value, fault = _tried(work) if multihost.main() else (None, None)
    value, fault = multihost.broadcast((value, fault))
    if fault is not None:
        raise types.InputError(fault)
    return value


def by_all(work: Callable[[], T]) -> T:
    """`work()` of every process, each its own result; where one raises an `InputError` all do, and say which did.

    `work` must not wait for other processes.
    """
    if multihost.count() == 1:
        return work()
    value, fault = _tried(work)
    faults = multihost.gather(fault)
    if fault is not None:
        raise types.InputError(fault)
    for index, other in enumerate(faults):
        if other is not None:
            raise types.InputError(f"Process {index} of {len(faults)} cannot go on: {other}")
    return cast(T, value)


def _tried(work: Callable[[], T]) -> tuple[T, None] | tuple[None, str]:
    try:
        return work(), None
    except types.InputError as error:
        return None, str(error)
