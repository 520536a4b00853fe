"""The labels of VTAB-1k that no feature holds: `label_function=NAME` of a `tfds:` source.

Seven of the nineteen tasks (VTAB, 1910.04867) are derived: objects counted, distances and angles binned. The other
twelve read the features `image` and `label` as they are. Facts: the task's published code (task_adaptation/data), with
a value on an edge belonging to the bin below it; distances are compared as float32, as they are stored.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from transformer_jax import paths, types

_CLEVR_FEWEST, _CLEVR_MOST = 3, 10
_CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
_KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0)
_KITTI_VEHICLES = 3
"""The first classes of KITTI's objects are Car, Van and Truck."""
_NO_VEHICLE = 1000.0
_BINS = 16


@dataclasses.dataclass(frozen=True)
class LabelFunction:
    """How a task's label follows from the features of its data set."""

    data_set: str
    features: tuple[str, ...]
    """As TFDS names them; `objects/size` is the field `size` of the sequence `objects`."""
    class_names: tuple[str, ...]
    label: Callable[..., int]
    """Of one array a feature."""
    zeros_and_ones: bool = False
    """The images hold the levels 0 and 1; VTAB shows them as 0 and 255."""


def find(name: str) -> LabelFunction:
    """The row of this name."""
    if name not in LABELS:
        raise types.InputError(
            f"label_function is one of {', '.join(LABELS)}. Not: {name!r}.{paths.did_you_mean(name, LABELS)}"
        )
    return LABELS[name]


def _count_all(sizes: np.ndarray) -> int:
    return np.size(sizes) - _CLEVR_FEWEST


def _closest_object(pixel_coords: np.ndarray) -> int:
    return _bin(_depths(pixel_coords), _CLEVR_EDGES)


def _closest_vehicle(kinds: np.ndarray, locations: np.ndarray) -> int:
    return _bin(np.append(_depths(locations)[kinds < _KITTI_VEHICLES], _NO_VEHICLE), _KITTI_EDGES)


def _depths(points: np.ndarray) -> Float[np.ndarray, " objects"]:
    """The third coordinate; a sequence without objects comes as an empty array of no particular shape."""
    return np.asarray(points, np.float32).reshape(-1, 3)[:, 2]


def _bin(distances: np.ndarray, edges: Sequence[float]) -> int:
    """Which edge the smallest distance lies above: the last one that is less."""
    smallest = np.float32(np.min(distances, initial=np.inf))
    return int(np.searchsorted(np.asarray(edges, np.float32), smallest, side="left")) - 1


def _grouped(label: np.ndarray, *, classes: int) -> int:
    return int(np.float32(label) // np.float32(classes / _BINS))


def _unchanged(label: np.ndarray) -> int:
    return int(label)


def _between(edges: Sequence[float], unit: str = "") -> tuple[str, ...]:
    return tuple(f"{low:g} to {high:g}{unit}" for low, high in zip(edges, edges[1:], strict=False))


def _groups(classes: int) -> tuple[str, ...]:
    starts = [math.ceil(group * classes / _BINS) for group in range(_BINS + 1)]
    return tuple(f"{start} to {stop - 1}" for start, stop in zip(starts, starts[1:], strict=False))


def _binned(feature: str, classes: int) -> LabelFunction:
    function = functools.partial(_grouped, classes=classes)
    return LabelFunction("dsprites", (feature,), _groups(classes), function, zeros_and_ones=True)


def _kept(feature: str, names: Sequence[int]) -> LabelFunction:
    return LabelFunction("smallnorb", (feature,), tuple(f"{name} degrees" for name in names), _unchanged)


LABELS: dict[str, LabelFunction] = {
    "clevr_count_all": LabelFunction(
        "clevr",
        ("objects/size",),
        tuple(f"{count} objects" for count in range(_CLEVR_FEWEST, _CLEVR_MOST + 1)),
        _count_all,
    ),
    "clevr_closest_object_distance": LabelFunction(
        "clevr", ("objects/pixel_coords",), _between(_CLEVR_EDGES), _closest_object
    ),
    "kitti_closest_vehicle_distance": LabelFunction(
        "kitti",
        ("objects/type", "objects/location"),
        (*_between(_KITTI_EDGES, " m"), "no vehicle"),
        _closest_vehicle,
    ),
    "dsprites_label_x_position": _binned("label_x_position", 32),
    "dsprites_label_orientation": _binned("label_orientation", 40),
    "smallnorb_label_azimuth": _kept("label_azimuth", range(0, 360, 20)),
    "smallnorb_label_elevation": _kept("label_elevation", range(30, 75, 5)),
}
