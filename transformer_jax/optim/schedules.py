"""Learning rates over a run: plain functions of the step, on the host.

The compiled step receives the rate of each step as an array, so another length or rate compiles nothing anew. Steps
count from 0. Every schedule rises linearly from 0 during `warmup` and falls linearly to `end` during the last
`cooldown` steps, as in big_vision (google-research/big_vision, utils.py).

    >>> rate = cosine(base=1.0, total_steps=100, warmup="10%")
    >>> [round(rate(step), 3) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
"""

import math
import re
from collections.abc import Callable

from transformer_jax import paths, types

Duration = int | str
"""Steps as a number, or text: `"500 steps"`, `"90 epochs"`, `"4096 examples"`, `"10%"` of the run."""

Schedule = Callable[[float], float]
"""The learning rate of a step; between two of them, where a run goes on with another batch size."""

_FORMS = "a number of steps, or text such as '500 steps', '90 epochs', '4096 examples' or '10%'"


def steps(
    duration: Duration, *, total: int | None = None, batch_size: int | None = None, epoch_examples: int | None = None
) -> int:
    """A duration in whole steps, rounded down but at least 1 unless it is 0.

    Percentages need `total`, examples need `batch_size`, epochs need `epoch_examples` too.

        >>> steps("90 epochs", batch_size=1024, epoch_examples=1_281_167)
        112602
    """
    if isinstance(duration, int) and not isinstance(duration, bool):
        if duration < 0:
            raise types.InputError(f"A duration must not be negative: {duration}. Give {_FORMS}.")
        return duration
    amount, unit = _parse(duration)
    if unit == "step":
        exact = amount
    elif unit == "%":
        if amount > 100:
            raise types.InputError(f"A percentage must be at most 100: {duration!r}. Give {_FORMS}.")
        exact = amount * _known(total, "the length of the run", duration) / 100
    else:
        examples = amount * (_known(epoch_examples, "the size of the data set", duration) if unit == "epoch" else 1)
        exact = examples / _known(batch_size, "the batch size", duration)
    return max(math.floor(exact + 1e-9), 1 if amount else 0)


def _parse(duration: Duration) -> tuple[float, str]:
    text = duration if isinstance(duration, str) else repr(duration)
    found = re.fullmatch(
        r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*(%|per cent|percent|steps?|epochs?|examples?)\s*", text
    )
    if not isinstance(duration, str) or found is None:
        raise types.InputError(f"A duration must be {_FORMS}: it is {duration!r}.")
    unit = found[2].rstrip("s")
    return float(found[1]), "%" if unit.startswith("per") else unit


def _known(value: int | None, what: str, duration: Duration) -> int:
    if value is None:
        raise types.InputError(f"{duration!r} needs {what}, which is not known here. Give the duration in steps.")
    return value


def cosine(
    *,
    base: float | int,
    total_steps: int,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    end: float | int = 0.0,
    batch_size: int | None = None,
    epoch_examples: int | None = None,
) -> Schedule:
    """After the warm-up, half a cosine from `base` at its end to `end` at the end of the run."""

    def shape(progress: float, _: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return _framed(shape, base, total_steps, warmup, cooldown, end, batch_size, epoch_examples)


def linear(
    *,
    base: float | int,
    total_steps: int,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    end: float | int = 0.0,
    batch_size: int | None = None,
    epoch_examples: int | None = None,
) -> Schedule:
    """After the warm-up, a straight line from `base` to `end` at the end of the run."""

    def shape(progress: float, _: float) -> float:
        return 1.0 - progress

    return _framed(shape, base, total_steps, warmup, cooldown, end, batch_size, epoch_examples)


def rsqrt(
    *,
    base: float | int,
    total_steps: int,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    end: float | int = 0.0,
    timescale: Duration = 10_000,
    batch_size: int | None = None,
    epoch_examples: int | None = None,
) -> Schedule:
    """`base / sqrt(1 + t / timescale)`, t steps after the warm-up (2106.04560; Vaswani et al. with timescale = warmup).

    It does not depend on the length of the run until the cooldown, so a run can be prolonged.
    """
    scale = steps(timescale, total=total_steps, batch_size=batch_size, epoch_examples=epoch_examples)
    if scale < 1:
        raise types.InputError(f"timescale must be at least one step: {timescale!r}. The usual value is 10_000.")

    def shape(_: float, since_warmup: float) -> float:
        return 1.0 / math.sqrt(1.0 + since_warmup / scale)

    return _framed(shape, base, total_steps, warmup, cooldown, end, batch_size, epoch_examples)


def constant(
    *,
    base: float | int,
    total_steps: int,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    end: float | int = 0.0,
    batch_size: int | None = None,
    epoch_examples: int | None = None,
) -> Schedule:
    """`base` between the warm-up and the cooldown; `end` is where the cooldown goes."""

    def shape(_: float, __: float) -> float:
        return 1.0

    return _framed(shape, base, total_steps, warmup, cooldown, end, batch_size, epoch_examples)


def _framed(
    shape: Callable[[float, float], float],
    base: float | int,
    total_steps: int,
    warmup: Duration,
    cooldown: Duration,
    end: float | int,
    batch_size: int | None,
    epoch_examples: int | None,
) -> Schedule:
    """`end + (base - end) * shape(progress in 0..1, steps since the warm-up)` between a warm-up and a cooldown."""
    sizes = {"total": total_steps, "batch_size": batch_size, "epoch_examples": epoch_examples}
    rise, fall = steps(warmup, **sizes), steps(cooldown, **sizes)
    _check(base, end, total_steps, rise, fall)
    between = max(total_steps - rise, 1)

    def rate(step: float) -> float:
        step = min(max(step, 0), total_steps)
        since_warmup = float(max(step - rise, 0))
        value = end + (base - end) * shape(since_warmup / between, since_warmup)
        if step < rise:
            value = base * step / rise
        if fall:
            value = end + (value - end) * min(1.0, (total_steps - step) / fall)
        return float(value)

    return rate


def _check(base: float | int, end: float | int, total_steps: int, warmup: int, cooldown: int) -> None:
    if total_steps < 1:
        raise types.InputError(f"A run must have at least one step: total_steps is {total_steps}.")
    if warmup + cooldown > total_steps:
        raise types.InputError(
            f"Warm-up and cooldown must fit into the run: {warmup} + {cooldown} steps are more than its {total_steps}."
            " Shorten them, or give them in per cent."
        )
    if not (math.isfinite(base) and base >= 0):
        raise types.InputError(f"The base learning rate must be a finite number, at least 0: it is {base}.")
    if not 0 <= end <= base:
        raise types.InputError(f"The last learning rate must lie between 0 and the base: end={end}, base={base}.")


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": cosine,
    "linear": linear,
    "rsqrt": rsqrt,
    "constant": constant,
}


def build(name: str, **options: object) -> Schedule:
    """The schedule of that name, with its keywords."""
    return SCHEDULES[paths.one_of("schedule.name", name, SCHEDULES)](**options)
