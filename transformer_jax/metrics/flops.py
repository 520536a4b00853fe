"""Floating-point operations of a program, counted in its jaxpr, and what a device could do at best.

Counted are matrix products and convolutions, a multiply-add as two, inside loops as often as they run: the "model
FLOPs" of the literature. Element-wise work is left out, as it is there.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core

# Dense bfloat16 peak of one JAX device in FLOP/s, from the vendors' data sheets; of TPU v2 and v3 a device is one core.
PEAKS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """FLOPs of one run of the program. A `while` loop of unknown length counts once, a `cond` as its dearest branch."""
    plain = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum(_equation(equation) for equation in plain.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "cond":
        return max(count(branch) for branch in params["branches"])
    repeats = params["length"] if name == "scan" else 1
    return repeats * sum(count(inner) for inner in _inner(params))


def _inner(params: dict[str, Any]) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    """The programs an equation runs: of `jit`, `scan`, `while`, `remat`, `custom_vjp_call` and their like."""
    for name, value in params.items():
        if name in ("fwd_jaxpr_thunk", "jvp_jaxpr_fun", "bwd"):  # rules for differentiation, not run as such
            continue
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            yield value


def _dot(equation: Any) -> int:
    left, right = (variable.aval.shape for variable in equation.invars)
    (contract, _), (batch, _) = equation.params["dimension_numbers"]
    contracted = math.prod(left[axis] for axis in contract)
    shared = math.prod(left[axis] for axis in batch)
    return 2 * math.prod(left) * math.prod(right) // (contracted * shared)


def _convolution(equation: Any) -> int:
    out, kernel = equation.outvars[0].aval.shape, equation.invars[1].aval.shape
    out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(out) * math.prod(kernel) // out_features


def peak(device_kind: str) -> float | None:
    """Peak FLOP/s of a device of this kind, None when it is not in the table. The longest matching name counts."""
    known = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(known, key=len)] if known else None


def utilisation(work: float, seconds: float, device_kinds: list[str]) -> float | None:
    """Model FLOPs utilisation of a step on these devices, 0..1; None when one of them is unknown."""
    peaks = [peak(kind) for kind in device_kinds]
    return None if not peaks or None in peaks else work / seconds / math.fsum(p for p in peaks if p)
