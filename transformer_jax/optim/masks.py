"""Which parameters are decayed, frozen or given a rate of their own, chosen by path.

Patterns are regular expressions for whole paths in the neutral form (`blocks/3/mlp/up/kernel`), although the arrays
carry the layers of a stack along their first axis: one pattern may treat the layers of one array differently.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transformer_jax import paths, types

KERNELS = (r"(.*/)?kernel",)
"""What weight decay applies to unless told otherwise: matrices, not biases, norms, tokens or positions."""

Rules = Sequence[Any]
"""Patterns, or pairs of a pattern and a factor."""


@dataclasses.dataclass(frozen=True, eq=False)
class Treatment:
    """What happens to one parameter.

    `decay` is the weight decay and `multiplier` scales its learning rate; where the layers of a stack differ they are
    arrays that broadcast against the parameter. `layered`: its first axis counts layers.
    """

    frozen: bool
    decay: float | np.ndarray
    multiplier: float | np.ndarray
    layered: bool


def plan(
    abstract_params: Mapping[str, Any],
    *,
    stacks: Mapping[str, int],
    weight_decay: float | int = 0.0,
    decay: Rules = KERNELS,
    freeze: Sequence[str] = (),
    multipliers: Rules = (),
) -> dict[str, Treatment]:
    """The treatment of every parameter, by its path in memory.

    Raises `InputError` for a pattern that matches nothing, two rules that give one parameter different factors, and a
    freeze that takes only some layers of a stack or leaves nothing to train.
    """
    if weight_decay < 0:
        raise types.InputError(f"weight_decay must be at least 0: it is {weight_decay}.")
    leaves = paths.flatten(abstract_params)
    names = {path: list(paths.unstack({path: leaf}, stacks, take=lambda _, __: None)) for path, leaf in leaves.items()}
    every = [name for group in names.values() for name in group]
    # Without weight decay the default says nothing: a model without kernels is none of its business.
    used = decay if weight_decay or tuple(decay) != KERNELS else ()
    decays = _factors(used, every, default=0.0)
    rates = _factors(multipliers, every, default=1.0)
    frozen = paths.select(freeze, every)

    treatments = {}
    for path, group in names.items():
        layered = group != [path]
        rank = len(leaves[path].shape)
        treatments[path] = Treatment(
            frozen=_whole(path, [name in frozen for name in group]),
            decay=_per_layer([weight_decay * decays[name] for name in group], layered, rank),
            multiplier=_per_layer([rates[name] for name in group], layered, rank),
            layered=layered,
        )
    if all(treatment.frozen for treatment in treatments.values()):
        raise types.InputError(
            f"Something must be left to train: freeze={list(freeze)} takes all {len(every)} parameters."
        )
    return treatments


def stop_gradient(params: Mapping[str, Any], freeze: Sequence[str], stacks: Mapping[str, int]) -> dict[str, Any]:
    """`params`, the frozen ones constants to differentiation: their gradients are zero and cost nothing."""
    if not freeze:
        return dict(params)
    treatments = plan(params, stacks=stacks, freeze=freeze)
    flat = paths.flatten(params)
    return paths.unflatten({p: jax.lax.stop_gradient(x) if treatments[p].frozen else x for p, x in flat.items()})


def table(abstract_params: Mapping[str, Any], treatments: Mapping[str, Treatment]) -> str:
    """What happens to every parameter, as aligned text with a line of totals."""
    leaves = paths.flatten(abstract_params)
    rows = [("parameter", "shape", "size", "decay", "rate")]
    totals = {"trained": 0, "frozen": 0, "decayed": 0}
    for path, leaf in leaves.items():
        treatment, size = treatments[path], int(np.prod(leaf.shape))
        totals["frozen" if treatment.frozen else "trained"] += size
        decayed = not treatment.frozen and bool(np.any(treatment.decay))
        totals["decayed"] += size if decayed else 0
        how = ("-", "frozen") if treatment.frozen else (_text(treatment.decay) if decayed else "-", _rate(treatment))
        rows.append((path, "x".join(map(str, leaf.shape)) or "scalar", f"{size:,}", *how))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {size:>{widths[2]}}  {decay:>{widths[3]}}  {rate}".rstrip()
        for path, shape, size, decay, rate in rows
    ]
    counts = ", ".join(f"{count:,} {word}" for word, count in totals.items())
    return "\n".join([*lines, f"{totals['trained'] + totals['frozen']:,} parameters: {counts}"])


def _factors(rules: Rules, names: Sequence[str], default: float) -> dict[str, float]:
    """The factor of each name. A rule is a pattern (factor 1) or a pair of a pattern and its factor."""
    factors: dict[str, float] = {}
    origin: dict[str, str] = {}
    for rule in rules:
        if not isinstance(rule, str) and not (isinstance(rule, tuple | list) and len(rule) == 2):
            raise types.InputError(
                f"A rule is a pattern, or a pair of a pattern and a factor: {rule!r} is neither. Write"
                " (('head/.*', 10.0),) for one pair."
            )
        pattern, factor = (rule, 1.0) if isinstance(rule, str) else rule
        if not (isinstance(factor, int | float) and np.isfinite(factor) and factor >= 0):
            raise types.InputError(f"The factor of a pattern must be a number, at least 0: {pattern!r} has {factor!r}.")
        for name in sorted(paths.select([pattern], names)):
            if factors.setdefault(name, float(factor)) != factor:
                raise types.InputError(
                    f"A parameter must have one factor: {name!r} gets {factors[name]} from {origin[name]!r} and"
                    f" {factor} from {pattern!r}. Exclude it from one of them, for example with '(?!head/).*'."
                )
            origin.setdefault(name, pattern)
    return {name: factors.get(name, default) for name in names}


def _whole(path: str, frozen: Sequence[bool]) -> bool:
    if any(frozen) and not all(frozen):
        layers = [index for index, one in enumerate(frozen) if one]
        raise types.InputError(
            f"The layers of a stack must be frozen together: freeze takes layers {layers} of {len(frozen)} of {path!r}."
            " Give these layers the learning-rate multiplier 0 instead."
        )
    return all(frozen)


def _per_layer(values: Sequence[float], layered: bool, rank: int) -> float | np.ndarray:
    if not layered or len(set(values)) == 1:
        return float(values[0])
    return np.asarray(values, np.float32).reshape(-1, *(1,) * (rank - 1))


def _text(value: float | np.ndarray) -> str:
    low, high = np.min(value), np.max(value)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _rate(treatment: Treatment) -> str:
    return f"x{_text(treatment.multiplier)}"
