"""Where a run begins."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from transformer_jax import types
from transformer_jax.parallel import together
from transformer_jax.training import checkpoint, state

RESUME = ("auto", "required", "never")


@dataclasses.dataclass(frozen=True)
class Start:
    """A state to train from, where its clock stands, and where it came from."""

    state: state.TrainState
    clock: state.Clock
    origin: str
    """`"own"`, `"resume"`, `"init_from"` or `"scratch"`."""


def begin(
    checkpointer: checkpoint.Checkpointer,
    abstract: state.TrainState,
    *,
    fresh: Callable[[], state.TrainState],
    resume: str | os.PathLike[str] = "auto",
    init_from: Callable[[state.TrainState], state.TrainState] | None = None,
    source: str = "other weights",
    accept: Callable[[dict[str, Any]], None] = lambda meta: None,
    say: Callable[[str], None] = print,
) -> Start:
    """The state a run starts from, in this order:

    1. the run's own newest checkpoint: the same command continues after any interruption;
    2. `resume=PATH`, another run's: everything is taken over, its step and optimizer too;
    3. `init_from(fresh state)`: only weights are taken over; step 0 and a new optimizer;
    4. scratch.

    `resume` is `"auto"`, `"required"` (an error if 1 finds nothing), `"never"` (an error if it finds something) or the
    path of 2. `abstract` has the shapes, dtypes and shardings of the state. `accept` sees the meta data of a checkpoint
    before its arrays are read, and raises when the run must not continue from it. One line says what was done.
    """
    resume = os.fspath(resume)
    own, corrupt = together.by_first(lambda: (checkpointer.steps(), checkpointer.corrupt()))
    _check(checkpointer, resume, own, corrupt)
    if own or resume not in RESUME:
        place = checkpointer.directory if own else resume
        restored, clock, _ = checkpointer.restore(abstract, source=None if own else resume, accept=accept)
        start = Start(restored, clock, "own" if own else "resume")
        say(f"Continuing at step {clock.step}, example {clock.examples}, from {place}.")
    elif init_from is not None:
        start = Start(init_from(fresh()), state.Clock(), "init_from")
        say(f"Starting at step 0 with the weights of {source}.")
    else:
        start = Start(fresh(), state.Clock(), "scratch")
        say("Starting at step 0 from scratch.")
    return start


def _check(checkpointer: checkpoint.Checkpointer, resume: str, own: list[int], corrupt: list[str]) -> None:
    if own and resume == "never":
        raise types.InputError(
            f"resume='never' needs a run directory without checkpoints: {checkpointer.directory} has step {own[0]}."
            " Use another --workdir, or resume='auto'."
        )
    if not own and resume == "auto" and corrupt:
        raise types.InputError(
            f"A run whose checkpoints are all corrupt does not start over by itself: {checkpointer.directory} has"
            f" {', '.join(corrupt)}. Use another --workdir, or resume='never' to start over in this one."
        )
    if not own and resume == "required":
        raise types.InputError(
            f"resume='required' needs a checkpoint to continue from: {checkpointer.directory} has none that is whole."
            " Check --workdir, or use resume='auto' to start a new run."
        )
