"""How much arithmetic a model is, counted in its jaxpr, and how much of the hardware that uses.

Matrix products and convolutions count, two operations a multiply-add; element-wise work does not. A scanned body counts
as often as it runs (XLA's own cost analysis counts it once). For utilisation count a training step without
rematerialisation: recomputed work is in the jaxpr of its gradient, but is no work of the model.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core

_PEAKS = (
    (r"TPU v2", 22.5e12),  # one device is a core, half a chip
    (r"TPU v3", 61.5e12),  # likewise
    (r"TPU v4", 275e12),
    (r"TPU v5 ?(lite|e)", 197e12),
    (r"TPU v5p?", 459e12),
    (r"TPU v6 ?(lite|e)", 918e12),
    (r"TPU ?7x", 1153.5e12),  # one device is half a chip
    (r".*\bB200\b.*", 2250e12),
    (r".*\bH(100|200|800)\b.*PCIe.*", 756e12),
    (r".*\bH100 NVL\b.*", 835e12),
    (r".*\bG?H(100|200|800)\b.*", 989.4e12),
    (r".*\bA(100|800)\b.*", 312e12),
    (r".*\bL40S\b.*", 362e12),
    (r".*\bL4\b.*", 121e12),
    (r".*\bA10G\b.*", 70e12),
    (r".*\bA10\b.*", 125e12),
    (r".*\bV100\b.*", 125e12),
    (r".*\bT4\b.*", 65e12),
    (r".*\bRTX 4090\b.*", 165.2e12),
    (r".*\bRTX 3090\b.*", 71e12),
)
"""Dense bfloat16 (float16 before Ampere) operations a second of one device, by the maker's data sheet."""


def peak(device_kind: str) -> float | None:
    """Operations a second of a device of that kind, at most; `None` when it is not in the table."""
    for pattern, rate in _PEAKS:
        if re.fullmatch(pattern, device_kind):
            return rate
    return None


def utilisation(work: float | int, seconds: float | int, devices: Sequence[jax.Device] | None = None) -> float | None:
    """The share of the peak that `work` operations in `seconds` are (MFU); `None` for a kind of unknown peak."""
    devices = jax.devices() if devices is None else devices
    rate = peak(devices[0].device_kind)
    return None if rate is None else work / seconds / (rate * len(devices))


def of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """The operations of `function(*args)`. Arguments may be shapes (`jax.ShapeDtypeStruct`)."""
    return count(jax.make_jaxpr(function)(*args, **kwargs))


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """The operations of a program. A `while` of unknown length counts once, a `cond` as its dearest branch."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum(_equation(equation) for equation in inner.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "cond":
        return max(count(branch) for branch in params["branches"])
    inside = sum(count(inner) for inner in _inner(params))
    if name == "scan":
        return params["length"] * inside
    if name == "shard_map":
        return params["mesh"].size * inside  # its body is what one device does
    return inside


def _dot(equation: Any) -> int:
    (contract, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contract)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    output_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    # Each output is a product with one filter: (height x width x input channels of its group).
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // output_features


def _inner(params: dict[str, Any]) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    """The programs a higher-order equation runs: jit, remat, scan, custom derivatives and their like."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            yield value
