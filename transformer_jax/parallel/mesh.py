"""The devices as a grid with named axes.

| axis | what is spread over it |
|---|---|
| replica | examples, between groups of devices that each hold everything |
| data | examples |
| fsdp | examples, and parameters with their optimizer state |
| sequence | the tokens of an example |
| tensor | heads and hidden features |

A mesh has all of them, so that rules may name any. Devices are laid out slice by slice and process by process, so that
the last axes stay within a host and every process reads one run of each batch.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from transformer_jax import paths, types
from transformer_jax.parallel import presets

AXES = ("replica", "data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("replica", "data", "fsdp")
"""The axes over which the examples of a batch are spread."""


class Reader(NamedTuple):
    """Which part of every batch a process reads: block `index` of `count` equal ones, counted from the first row."""

    index: int
    count: int


def make(
    shape: Mapping[str, int] | None,
    devices: Sequence[Any] | None = None,
    *,
    across: Mapping[str, int] | None = None,
    preset: str = "data",
) -> Mesh:
    """The mesh of `{"data": -1, "fsdp": 2}`: -1 takes the devices that are left, an axis that is not named is 1.

    Without a shape it is the mesh of the `preset`. Where devices lie on several slices (`device.slice_index`), `across`
    says how many parts of which axes lie on different ones, `{"replica": 2}`; by default the first axes that divide,
    each as far as it does. Raises `InputError` unless the axes use every device, and the preset every axis. Waits for
    no other process (`connecting.connect` does).
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = _slices(devices)
    shape = default_shape(preset, devices) if shape is None else shape
    sizes = _sizes(shape, len(devices))
    _check_used(sizes, preset)
    parts = _across(sizes, across or {}, len(slices))
    inner = [sizes[axis] // parts[axis] for axis in AXES]
    grids = np.empty((*parts.values(), *inner), dtype=object)
    for place, members in zip(itertools.product(*map(range, parts.values())), slices, strict=True):
        grids[place] = _grid(members, inner)
    order = [axis + side * len(AXES) for axis in range(len(AXES)) for side in (0, 1)]
    grid = grids.transpose(order).reshape(tuple(sizes.values()))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def default_shape(preset: str, devices: Sequence[Any]) -> dict[str, int]:
    """The mesh a preset is for, on these devices: fast axes within a host, groups of slices (hosts, but on a TPU)."""
    hosts = len({(_slice(device), device.process_index) for device in devices})
    groups = len(_slices(devices))
    if groups == 1 and devices[0].platform != "tpu":  # the links of a TPU slice do not end at its hosts
        groups = hosts
    return presets.named(preset).mesh(groups, max(len(devices) // hosts, 1))


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


def readers(mesh: Mesh, process: int | None = None) -> Reader:
    """Which block of every batch `process` (this one) must read; processes whose devices hold the same rows share it.

    Raises `InputError` where the rows of a process are not one run, or not as many as those of the others.
    """
    process = jax.process_index() if process is None else process
    rows: dict[int, set[int]] = {}
    for row, device in np.ndenumerate(mesh.devices.reshape(batch_parts(mesh), -1)):
        rows.setdefault(device.process_index, set()).add(row[0])
    blocks = sorted({tuple(sorted(held)) for held in rows.values()})
    size = len(blocks[0])
    if [row for block in blocks for row in block] != list(range(len(blocks) * size)) or any(
        len(block) != size for block in blocks
    ):
        held = "; ".join(f"process {index} {sorted(rows[index])}" for index in sorted(rows)[:4])
        raise types.InputError(
            f"The devices of a process must hold one run of a batch, as long as every other's: of {batch_parts(mesh)}"
            f" parts {held}. Choose sizes of the mesh (and parallel.across) that divide the devices of a process, or"
            " that they divide."
        )
    if process not in rows:
        raise types.InputError(
            f"A process that reads must have devices in the mesh: process {process} has none, {sorted(rows)} have."
        )
    return Reader(blocks.index(tuple(sorted(rows[process]))), len(blocks))


def _sizes(shape: Mapping[str, int], count: int) -> dict[str, int]:
    """The size of every axis, -1 replaced."""
    for axis, size in shape.items():
        paths.one_of("An axis of the mesh", axis, AXES)
        if size != -1 and size < 1:
            raise types.InputError(f"The size of a mesh axis must be positive, or -1 for the rest: {axis} is {size}.")
    sizes = {axis: 1 for axis in AXES} | dict(shape)
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise types.InputError(f"One axis of the mesh may be -1, the devices that are left: {' and '.join(free)} are.")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and count % fixed == 0:
        sizes[free[0]] = count // fixed
    elif free or fixed != count:
        _refuse(shape, fixed, count)
    return sizes


def _check_used(sizes: Mapping[str, int], preset: str) -> None:
    for axis, size in sizes.items():
        if size != 1 and axis not in presets.named(preset).axes:
            able = [name for name, other in presets.PRESETS.items() if axis in other.axes]
            raise types.InputError(
                f"Nothing is spread over the axis {axis!r} by the rules {preset!r}: it must be 1, not {size}."
                f" Set parallel.rules to {' or '.join(map(repr, able))}."
            )


def _refuse(shape: Mapping[str, int], fixed: int, count: int) -> None:
    divisors = ", ".join(str(size) for size in range(1, count + 1) if count % size == 0)
    said = ", ".join(f"{axis}={size}" for axis, size in shape.items()) or "no axis"
    if count % fixed:
        remedy = f"the axes may multiply to {divisors}, with data=-1 for the rest"
    else:
        remedy = "set data=-1 for the rest, or hide devices from JAX"
    raise types.InputError(f"A mesh must use every device: {said} make {fixed}, there are {count}: {remedy}.")


def _slice(device: Any) -> int:
    return getattr(device, "slice_index", None) or 0


def _slices(devices: Sequence[Any]) -> list[list[Any]]:
    """The devices of every slice, those of a process together, in the order given."""
    ordered = sorted(devices, key=lambda device: (_slice(device), device.process_index))
    found = [list(members) for _, members in itertools.groupby(ordered, key=_slice)]
    if len({len(members) for members in found}) > 1:
        raise types.InputError(
            f"Slices must have as many devices as each other: they have {', '.join(str(len(m)) for m in found)}."
        )
    return found


def _across(sizes: Mapping[str, int], across: Mapping[str, int], slices: int) -> dict[str, int]:
    """Into how many parts every axis is cut by the borders of the slices."""
    for axis in across:
        paths.one_of("An axis of parallel.across", axis, AXES)
    if slices == 1:
        return {axis: 1 for axis in AXES}
    parts = {axis: 1 for axis in AXES} | dict(across or _shared_out(sizes, slices))
    if math.prod(parts.values()) != slices or any(size < 1 or sizes[axis] % size for axis, size in parts.items()):
        shape = ", ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "no axis"
        said = ", ".join(f"{axis}={size}" for axis, size in across.items()) or "not set and none would do"
        raise types.InputError(
            f"The parts of the mesh across slices must divide their axes and multiply to the slices: there are {slices}"
            f" slices, the mesh is {shape}, across is {said}. Set parallel.across, such as {{'replica': {slices}}} with"
            f" a mesh that has replica={slices}."
        )
    return parts


def _shared_out(sizes: Mapping[str, int], slices: int) -> dict[str, int]:
    """The slices over the axes, as many over the first as divide both: XLA calls every host of GPUs a slice."""
    parts, left = {}, slices
    for axis in AXES:
        parts[axis] = math.gcd(sizes[axis], left)
        left //= parts[axis]
    return parts


def _grid(devices: list[Any], sizes: list[int]) -> np.ndarray:
    """The devices of one slice as an array of that shape.

    One TPU host is arranged as its links run. Several stand in their order, which keeps the rows of a process
    together; as hosts are numbered along the links, runs of them are blocks of the torus.
    """
    if devices[0].platform == "tpu" and len({device.process_index for device in devices}) == 1:
        return jax.make_mesh(tuple(sizes), AXES, (AxisType.Auto,) * len(AXES), devices=devices).devices
    array = np.empty(len(devices), dtype=object)
    array[:] = devices
    return array.reshape(sizes)
