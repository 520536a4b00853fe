"""The devices as a mesh of named axes."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh

from transformer_jax import paths, types

AXES = ("replica", "data", "fsdp", "tensor", "sequence")
"""Outermost first: replicas talk least, `sequence` and `tensor` most."""
BATCH_AXES = ("replica", "data", "fsdp")
"""The axes a batch is split over."""


def make(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh such as `{"data": -1, "fsdp": 2}`; one axis may be -1 and takes the devices that are left.

    Every name of `AXES` is an axis of the result, of size 1 where it is not asked for. Raises `InputError` when the
    sizes do not make up the devices there are.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    for name, size in shape.items():
        if name not in AXES:
            raise types.InputError(
                f"A mesh axis is one of {', '.join(AXES)}: not {name!r}.{paths.did_you_mean(name, AXES)}"
            )
        if size < 1 and size != -1:
            raise types.InputError(f"A mesh axis has a size of at least 1, or -1 for what is left: {name} has {size}.")
    sizes = {name: shape.get(name, 1) for name in AXES}
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise types.InputError(f"One mesh axis at most may be -1: {' and '.join(free)} are.")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if count % fixed or (not free and fixed != count):
        asked = " x ".join(f"{name} {size}" for name, size in sizes.items() if size not in (1, -1)) or "one device"
        fits = [n for n in range(1, count + 1) if count % n == 0]
        raise types.InputError(
            f"The sizes of the mesh must make up the {count} devices there are: {asked} makes {fixed}."
            f" Set one axis to -1, or choose sizes whose product is {'one of ' if free else ''}"
            f"{', '.join(map(str, fits)) if free else count}."
        )
    if free:
        sizes[free[0]] = count // fixed
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)
