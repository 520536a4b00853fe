"""Where parameters and their optimizer state lie on a mesh, by the names of their axes.

A preset turns (axis names, shape) of a parameter into a `PartitionSpec`. Whatever lies at the end of a path that is a
parameter's, and has its rank, is placed like it: gradients, moments, averages; a moment with an axis less (a factored
one) like what is left of it. Everything else is on every device. `Placement` does the same for activations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax import paths, types
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import placement, presets

PRESETS = presets.PRESETS
Placement = placement.Placement
SMALLEST = 1024
"""Parameters with fewer elements are not worth cutting."""
MOST_WHOLE = 0.02
"""The part of the bytes of all parameters that may stay whole on every device under fsdp."""
OPTIMIZER = "optimizer"
"""The folder of a training state whose leaves `optimizer_state` is about."""

Names = Sequence[str | None]
Cuts = list[tuple[str, ...]]
"""The axes of the mesh over which each axis of an array is cut."""


def parameter(names: Names, shape: Sequence[int], mesh: Mesh, preset: str, *, path: str = "") -> PartitionSpec:
    """Where a parameter lies; `path` is what an error calls it."""
    return _spec(_parameter_cuts(names, shape, mesh, preset, path))


def shardings(
    tree: Any, axes: Mapping[str, Names], mesh: Mesh, preset: str, *, optimizer_state: str = "parameter"
) -> Any:
    """A sharding for every leaf of `tree`, in the same containers.

    `axes` names the axes of every parameter by its path in memory. The leaves need only a shape. Leaves in the folder
    `optimizer` lie like their parameter, or with `optimizer_state="data"` are cut over `data` too (ZeRO-1, 1910.02054).
    Raises `InputError` where an axis does not divide.
    """
    presets.named(preset)
    paths.one_of("parallel.optimizer_state", optimizer_state, ("parameter", "data"))
    leaves = [(_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    owners = [_parameter(path, axes) for path, _ in leaves]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (_, leaf) in zip(owners, leaves, strict=True):
        if name is not None and len(axes[name]) == len(leaf.shape):
            shapes.setdefault(name, tuple(leaf.shape))
    if axes and not shapes:
        raise types.InputError(
            f"Parameters must be named as their axes are: no path of the tree ends in {next(iter(axes))!r}."
        )
    _check_divides(shapes, axes, mesh, preset)
    found = []
    for name, (path, leaf) in zip(owners, leaves, strict=True):
        cuts: Cuts = []
        if name in shapes:
            cuts = _parameter_cuts(axes[name], shapes[name], mesh, preset, name)
            if optimizer_state == "data" and path.split(paths.SEPARATOR)[0] == OPTIMIZER:
                cuts = _cut(cuts, axes[name], shapes[name], mesh, _left_over(mesh, preset))
            cuts = _of_shape(cuts, shapes[name], tuple(leaf.shape))
        found.append(NamedSharding(mesh, _spec(cuts)))
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def require_sharded(params: Any, axes: Mapping[str, Names], mesh: Mesh, preset: str) -> None:
    """`InputError` when more than `MOST_WHOLE` of the bytes of `params` are whole on every device under fsdp.

    Parameters too small to be worth cutting (`SMALLEST`) are not held against it: of a tiny model they may be more.
    """
    size, flat = mesh.shape["fsdp"], paths.flatten(params)
    if not presets.named(preset).fsdp or size == 1:
        return
    placed = paths.flatten(shardings(params, axes, mesh, preset))
    large = {path: leaf for path, leaf in flat.items() if math.prod(leaf.shape) >= SMALLEST}
    whole = [path for path in large if placed[path].is_fully_replicated]
    share = _share(whole, flat)
    if share <= MOST_WHOLE:
        return
    largest = sorted(whole, key=lambda path: -_share([path], flat))[:3]
    named = ", ".join(f"{path} {_words(axes[path], flat[path].shape)}" for path in largest)
    better: list[tuple[bool, int]] = []
    for fewer in (n for n in range(2, size) if size % n == 0):
        parts = {path: _parts(axes[path], leaf.shape, fewer) for path, leaf in large.items()}
        if _share([path for path, each in parts.items() if not each], flat) <= MOST_WHOLE:
            ragged = [path for path, each in parts.items() if not any(map(tiles, each))]
            better.append((_share(ragged, flat) <= MOST_WHOLE, fewer))
    remedy = f"fsdp={max(better)[1]} would do, with data=-1 for the rest" if better else "No smaller fsdp would do"
    raise types.InputError(
        f"At most {MOST_WHOLE:.0%} of the bytes of the parameters may be whole on every device with rules {preset!r}:"
        f" {share:.1%} are, as no axis divides by fsdp={size} in {named}. {remedy}; or take the rules 'data'."
    )


def batch(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis counts examples."""
    return NamedSharding(mesh, PartitionSpec(meshes.BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _parameter_cuts(names: Names, shape: Sequence[int], mesh: Mesh, preset: str, path: str) -> Cuts:
    rules = presets.named(preset)
    cuts: Cuts = []
    for name, length in zip(names, shape, strict=True):
        target = rules.parameters.get(name or "")
        cut = target is not None and mesh.shape[target] > 1
        if cut and length % mesh.shape[target]:
            if name not in presets.MAY_STAY_WHOLE:
                _refuse(path, {path: (name, length)}, target, mesh)
            cut = False
        cuts.append((target,) if cut and target else ())
    return _cut(cuts, names, shape, mesh, ("fsdp",)) if rules.fsdp else cuts


def _cut(cuts: Cuts, names: Names, shape: Sequence[int], mesh: Mesh, over: Iterable[str]) -> Cuts:
    """One axis more is cut over all of `over`: of those that divide the one whose parts are whole tiles of a TPU.

    Among equals an axis that is not cut yet, then the longest, then the first; never the layers of a stack, which a
    scan reads one at a time. Parts of 20 rows were measured to become blocking all-reduces of whole parameters.
    """
    over = tuple(axis for axis in over if mesh.shape[axis] > 1)
    size = math.prod(mesh.shape[axis] for axis in over)
    if size == 1 or math.prod(shape) < SMALLEST:
        return cuts
    best: tuple[Any, ...] = ()
    chosen = None
    for axis, (name, length, taken) in enumerate(zip(names, shape, cuts, strict=True)):
        part, rest = divmod(length // math.prod(mesh.shape[other] for other in taken), size)
        if name == "layers" or rest or not part:
            continue
        rank = (tiles(part), not taken, length)
        if rank > best:
            best, chosen = rank, axis
    return [(*taken, *over) if axis == chosen else taken for axis, taken in enumerate(cuts)]


def tiles(part: int) -> int:
    """How well so many rows fill the (8, 128) tiles of a TPU: 2 along either side, 1 along the first only, 0 not."""
    return 2 if part % 128 == 0 else 1 if part % 8 == 0 else 0


def _left_over(mesh: Mesh, preset: str) -> tuple[str, ...]:
    """The axes of examples within a replica over which no parameter is cut."""
    return ("data",) if presets.named(preset).fsdp else ("data", "fsdp")


def _of_shape(cuts: Cuts, shape: tuple[int, ...], leaf: tuple[int, ...]) -> Cuts:
    """The cuts of a leaf that has the parameter's shape, or lacks one of its axes; none where it could be either."""
    if leaf == shape:
        return cuts
    without = [
        [*cuts[:axis], *cuts[axis + 1 :]]
        for axis in range(len(shape))
        if tuple(np.delete(shape, axis).tolist()) == leaf
    ]
    return without[0] if without and all(other == without[0] for other in without) else []


def _check_divides(shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, Names], mesh: Mesh, preset: str) -> None:
    """One error for all axes that a rule cannot cut."""
    rules = presets.named(preset).parameters
    for target in sorted(set(rules.values())):
        bound = {
            path: (name, length)
            for path, shape in shapes.items()
            for name, length in zip(axes[path], shape, strict=True)
            if rules.get(name or "") == target and name not in presets.MAY_STAY_WHOLE
        }
        worst = next((path for path, (_, length) in bound.items() if length % mesh.shape[target]), None)
        if worst is not None:
            _refuse(worst, bound, target, mesh)


def _refuse(path: str, bound: Mapping[str, tuple[str | None, int]], target: str, mesh: Mesh) -> None:
    name, length = bound[path]
    common = math.gcd(*(length for _, length in bound.values()))
    sizes = [str(size) for size in range(1, common + 1) if common % size == 0 and mesh.size % size == 0]
    raise types.InputError(
        f"The axis {target!r} of the mesh must divide what it cuts: the axis {name!r} of {path} has {length}, {target}"
        f" is {mesh.shape[target]}. {target} may be {', '.join(sizes)} for every parameter of this model on {mesh.size}"
        " devices, with data=-1 for the rest."
    )


def _share(some: Iterable[str], params: Mapping[str, Any]) -> float:
    """The part of the bytes of all parameters that is in some of them."""
    size = {path: math.prod(leaf.shape) * leaf.dtype.itemsize for path, leaf in params.items()}
    return sum(size[path] for path in some) / max(sum(size.values()), 1)


def _parts(names: Names, shape: Sequence[int], size: int) -> list[int]:
    """How long a part would be of every axis that can be cut into so many."""
    return [
        length // size for name, length in zip(names, shape, strict=True) if name != "layers" and length % size == 0
    ]


def _words(names: Names, shape: Sequence[int]) -> str:
    return f"({', '.join(f'{name} {length}' for name, length in zip(names, shape, strict=True))})"


def _spec(cuts: Cuts) -> PartitionSpec:
    entries = [None if not cut else cut[0] if len(cut) == 1 else cut for cut in cuts]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=paths.SEPARATOR)


def _parameter(path: str, axes: Mapping[str, Names]) -> str | None:
    """The longest end of `path` that is a parameter's."""
    parts = path.split(paths.SEPARATOR)
    ends = (paths.SEPARATOR.join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in axes), None)
