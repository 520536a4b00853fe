"""What the loop knows of evaluation: something with a name that turns parameters into numbers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from transformer_jax.parallel import multihost
from transformer_jax.training import preemption, state, watchdog


@runtime_checkable
class Evaluator(Protocol):
    """`evaluator(params, stop=...) -> {"top1": 0.97}`. It polls `stop` between batches and may return early then."""

    @property
    def name(self) -> str: ...

    def __call__(self, params: Any, *, stop: Callable[[], bool]) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An evaluator and when it runs: every `every` steps, before a save every `saves` steps, and at the end."""

    evaluator: Evaluator
    every: int | None = None
    saves: int | None = None
    average: bool = False
    """Evaluate the Polyak average instead of the parameters."""

    def due(self, step: int, total_steps: int) -> bool:
        periods = [period for period in (self.every, self.saves) if period is not None]
        return step == total_steps or (step > 0 and any(step % period == 0 for period in periods))


def run(scheduled: Sequence[Scheduled], current: state.TrainState, stop: preemption.Stop) -> dict[str, float]:
    """All numbers of these evaluators as `{"val/top1": 0.97}`. Raises `Preempted` when asked to stop: half an
    evaluation is not reported."""
    scores: dict[str, float] = {}
    for item in scheduled:
        params = current.average if item.average and current.average is not None else current.params
        # Reading results back is what an evaluator is for; inputs still have to be placed on purpose.
        with stop.interruptible(), jax.transfer_guard_device_to_host("allow"):
            found = judged(item.evaluator, params, stop)
        scores.update({f"{item.evaluator.name}/{metric}": value for metric, value in found.items()})
    return scores


def judged(evaluator: Evaluator, params: Any, stop: preemption.Stop) -> dict[str, float]:
    """What one evaluator says, when every process has its answer: each fits classifiers by itself, some for longer,
    and who went on alone would look as if it hung. Raises `Preempted` when asked to stop."""
    found = evaluator(params, stop=stop)
    multihost.barrier(f"after the evaluation {evaluator.name!r}", timeout=watchdog.PATIENCE)
    stop.check()
    return {metric: float(value) for metric, value in found.items()}
