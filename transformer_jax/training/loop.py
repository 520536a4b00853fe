"""The training loop."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.data import loading
from transformer_jax.parallel import memory
from transformer_jax.training import checkpoint, evaluator, journal, preemption
from transformer_jax.training import state as states
from transformer_jax.training import step as steps

IDS, SKIPPED = loading.ID, loading.SKIPPED
"""Keys of a batch that stay on the host: the ids of its examples, and how many bad ones were passed over for it."""


@runtime_checkable
class Feed(Protocol):
    """An iterator over the batches of this process, that can be closed."""

    def __next__(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


def fit(
    state: states.TrainState,
    train_step: steps.Step,
    batches: Callable[[int], Feed],
    *,
    clock: states.Clock,
    total_steps: int,
    batch_size: int,
    schedule: Callable[[int], float],
    log: journal.Journal,
    stop: preemption.Stop,
    put: Callable[[types.Batch], Any] = jax.device_put,
    evaluations: Sequence[evaluator.Scheduled] = (),
    checkpointer: checkpoint.Checkpointer | None = None,
    save_every: int | None = None,
    save_last: bool = True,
) -> states.TrainState:
    """Trains from where `clock` stands to `total_steps`; returns the last state. `clock` is moved along.

    `train_step` is compiled and donates the state. `batches(position)` reads this process's batches from a global
    position in the data on, and has a `close`; `put` brings one onto the devices. Without `save_every`, only the end is
    saved, without `save_last` not even that. Asked to stop, the run is saved where it stands and `Preempted` raised.

    The order of a turn is fixed: evaluate, save, next batch, step, log the step before. What is saved has been
    evaluated, so that the best can be kept. The next batch is prepared while the device works on the last step, and
    metrics are read one step late, so nothing waits for the step that was just dispatched.
    """
    replicated = state.step.sharding
    feed = batches(clock.examples)
    scores: dict[str, float] = {}
    with jax.transfer_guard("disallow"), contextlib.closing(feed), _committed(checkpointer), log.training():
        try:
            while True:
                due = [item for item in evaluations if not clock.evaluated and item.due(clock.step, total_steps)]
                if due:
                    with log.paused("evaluation"):
                        scores = evaluator.run(due, state, stop)
                    log.evaluation(clock.step, scores)
                clock.evaluated = True

                due_save = _save_due(clock.step, total_steps, save_every, save_last)
                if checkpointer is not None and (due_save or (scores and checkpointer.has(clock.step))):
                    with log.paused("save"):
                        _save(checkpointer, state, clock, scores, log)

                if clock.step >= total_steps:
                    log.flush()
                    return state

                with log.waiting(), stop.interruptible():
                    batch, told = _next(feed, clock)

                learning_rate = np.float32(schedule(clock.step))
                with log.dispatching():
                    rate = memory.placed(learning_rate, replicated)
                    state, metrics = train_step(state, put(batch), rate)
                clock.advance(batch_size, int(np.sum(told.get(SKIPPED, 0))))
                scores = {}

                log.step(clock, metrics, learning_rate, told.get(IDS))
        except preemption.Preempted:
            log.flush()
            if checkpointer is not None:
                with log.paused("save"):
                    _save(checkpointer, state, clock, scores, log)
            log.text(f"Asked to stop: {'saved at' if checkpointer else 'left at'} step {clock.step}.")
            raise


def _next(feed: Feed, clock: states.Clock) -> tuple[dict[str, Any], dict[str, Any]]:
    """The next batch, and what it tells the host."""
    batch = next(feed, None)
    if batch is None:
        raise types.InputError(
            f"Training data must not end before training does: there is none after example {clock.examples}."
            " A training pipeline runs across epochs without an end."
        )
    return split(batch)


def split(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a batch goes to the devices, and what it tells the host."""
    told = {name: batch[name] for name in (IDS, SKIPPED) if name in batch}
    return {name: value for name, value in batch.items() if name not in told}, told


def _save_due(step: int, total_steps: int, every: int | None, last: bool) -> bool:
    return last if step == total_steps else every is not None and step > 0 and step % every == 0


def _save(
    checkpointer: checkpoint.Checkpointer,
    state: states.TrainState,
    clock: states.Clock,
    scores: dict[str, float],
    log: journal.Journal,
) -> None:
    if not checkpointer.has(clock.step):
        clock.goodput = log.goodput.totals()
        checkpointer.save(state, dataclasses.replace(clock, skipped=log.skipped(clock.skipped)), scores)
    elif scores:  # the step a run continues from is there already, perhaps without its evaluation
        checkpointer.record(clock, scores)


@contextlib.contextmanager
def _committed(checkpointer: checkpoint.Checkpointer | None) -> Generator[None, None, None]:
    """However the loop ends, what it saved is committed first; a save that failed is an error."""
    try:
        yield
    finally:
        if checkpointer is not None:
            checkpointer.wait()
