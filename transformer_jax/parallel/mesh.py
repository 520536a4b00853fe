"""The devices as a grid with named axes.

| axis | what is spread over it |
|---|---|
| replica | examples, between groups of devices that each hold everything |
| data | examples |
| fsdp | examples, and parameters with their optimizer state |
| sequence | the tokens of an example |
| tensor | heads and hidden features |

A mesh has all of them, so that rules may name any; `replica`, `sequence` and `tensor` have no rules yet and are 1.
"""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh

from transformer_jax import paths, types

AXES = ("replica", "data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("replica", "data", "fsdp")
"""The axes over which the examples of a batch are spread."""

_WITH_RULES = ("data", "fsdp")


def make(shape: Mapping[str, int] | None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `{"data": -1, "fsdp": 2}`: -1 takes the devices that are left, an axis that is not named is 1.

    Raises `InputError` unless the axes use every device.
    """
    devices = jax.devices() if devices is None else devices
    shape = {"data": -1} if shape is None else shape
    sizes = {axis: 1 for axis in AXES} | _checked(shape)
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise types.InputError(f"One axis of the mesh may be -1, the devices that are left: {' and '.join(free)} are.")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    elif free or fixed != len(devices):
        _refuse(shape, fixed, len(devices))
    return jax.make_mesh(tuple(sizes.values()), AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """`InputError` unless every device gets the same number of examples, at least one."""
    parts = batch_parts(mesh)
    if batch_size % parts or batch_size < parts:
        lower, upper = batch_size // parts * parts, (batch_size // parts + 1) * parts
        near = f"{lower} or {upper}" if lower else f"{upper}"
        raise types.InputError(
            f"A batch must divide evenly over the devices: {batch_size} examples over {parts} of them. {near} would."
        )


def _checked(shape: Mapping[str, int]) -> dict[str, int]:
    for axis, size in shape.items():
        paths.one_of("An axis of the mesh", axis, AXES)
        if size != -1 and size < 1:
            raise types.InputError(f"The size of a mesh axis must be positive, or -1 for the rest: {axis} is {size}.")
        if axis not in _WITH_RULES and size != 1:
            raise types.InputError(f"Nothing is spread over the axis {axis!r} yet: it must be 1, not {size}.")
    return dict(shape)


def _refuse(shape: Mapping[str, int], fixed: int, count: int) -> None:
    divisors = ", ".join(str(size) for size in range(1, count + 1) if count % size == 0)
    said = ", ".join(f"{axis}={size}" for axis, size in shape.items()) or "no axis"
    if count % fixed:
        remedy = f"the axes may multiply to {divisors}, with data=-1 for the rest"
    else:
        remedy = "set data=-1 for the rest, or hide devices from JAX"
    raise types.InputError(f"A mesh must use every device: {said} make {fixed}, there are {count}: {remedy}.")
