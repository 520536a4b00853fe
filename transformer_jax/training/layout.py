"""The neutral layout of a checkpoint: every leaf under its plain path, one per layer, on no particular mesh.

In memory the layers of a stack are one array with a leading axis. A state that one process can see whole goes through
host memory, where nothing has to be compiled; one that is spread over processes is cut and joined inside `jit`, leaf by
leaf. What lies beside the state meanwhile is spread over all devices: of n a state that each of them has whole needs
1/n more, not as much again.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import paths, types
from transformer_jax.parallel import memory


def to_neutral(flat: types.FlatTree, stacks: Mapping[str, int], *, spread: bool) -> types.FlatTree:
    """Leaves to write: a copy, so that the step may overwrite (donate) the original while they are being written."""
    if spread:
        return {name: piece for path, leaf in flat.items() for name, piece in _apart(path, leaf, stacks).items()}
    return paths.unstack({path: np.array(leaf) for path, leaf in jax.device_get(flat).items()}, stacks)


def from_neutral(neutral: types.FlatTree, stacks: Mapping[str, int], target: types.FlatTree) -> types.FlatTree:
    """The inverse of `to_neutral`: numpy leaves stay numpy, arrays take the shardings of `target` and are given up."""
    if all(isinstance(leaf, np.ndarray) for leaf in neutral.values()):
        return paths.stack(neutral, stacks, np.stack)
    return {path: _together(neutral, path, leaf, stacks) for path, leaf in target.items()}


def pieces(target: types.FlatTree, stacks: Mapping[str, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """The neutral leaves of `target`, each cut over every device that it can be cut over."""
    cut = paths.unstack(abstract(target), stacks, take=layer)
    return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_spread(leaf)) for path, leaf in cut.items()}


def _apart(path: str, leaf: jax.Array, stacks: Mapping[str, int]) -> types.FlatTree:
    """The neutral leaves of one leaf: copies."""
    parts = pieces({path: leaf}, stacks)
    near = jax.device_put(leaf, _in_own_memory(leaf.sharding))
    found = _cut(path not in parts, tuple(part.sharding for part in parts.values()))(near)
    if _is_far(leaf.sharding):  # a leaf that waits on the host is only one at a time on the devices
        jax.block_until_ready(found)
    return dict(zip(parts, found, strict=True))


def _together(neutral: types.FlatTree, path: str, target: Any, stacks: Mapping[str, int]) -> jax.Array:
    """One leaf from its neutral ones, which are taken out of `neutral` and given up."""
    parts = pieces({path: target}, stacks)
    joined = _join(path not in parts, _in_own_memory(target.sharding))([neutral.pop(name) for name in parts])
    return jax.block_until_ready(jax.device_put(joined, target.sharding))


@functools.cache
def _cut(stacked: bool, where: tuple[Any, ...]) -> Callable[[jax.Array], list[jax.Array]]:
    def cut(leaf: jax.Array) -> list[jax.Array]:
        return [jnp.copy(leaf[index] if stacked else leaf) for index in range(len(where))]

    return jax.jit(cut, out_shardings=list(where))


@functools.cache
def _join(stacked: bool, where: Any) -> Callable[[list[jax.Array]], jax.Array]:
    return jax.jit(lambda parts: jnp.stack(parts) if stacked else parts[0], out_shardings=where)


def _spread(leaf: jax.ShapeDtypeStruct) -> Any:
    """The leaf's sharding, cut further over the axes of the mesh along which devices hold the same."""
    sharding = leaf.sharding
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return sharding
    mesh, entries = sharding.mesh, [*sharding.spec, *(None,) * (len(leaf.shape) - len(sharding.spec))]
    cuts = [entry if isinstance(entry, tuple) else () if entry is None else (entry,) for entry in entries]
    for name, size in mesh.shape.items():
        if size == 1 or any(name in taken for taken in cuts):
            continue
        for axis, length in enumerate(leaf.shape):
            if length and length % (size * math.prod(mesh.shape[taken] for taken in cuts[axis])) == 0:
                cuts[axis] = (*cuts[axis], name)
                break
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*(taken or None for taken in cuts)))


def _in_own_memory(sharding: Any) -> Any:
    """The same sharding in the devices' own memory, where that of the host has it."""
    return jax.sharding.NamedSharding(sharding.mesh, sharding.spec) if _is_far(sharding) else sharding


def _is_far(sharding: Any) -> bool:
    return isinstance(sharding, jax.sharding.NamedSharding) and sharding.memory_kind == memory.HOST


def as_stored(
    target: types.FlatTree, stored: Mapping[str, Mapping[str, Any]], stacks: Mapping[str, int]
) -> types.FlatTree:
    """`target` with the dtypes of a checkpoint whose leaves are `stored` (of `describe`)."""
    found = {}
    for path, leaf in target.items():
        first = next(iter(paths.unstack({path: leaf}, stacks, take=lambda whole, index: whole)))
        found[path] = jax.ShapeDtypeStruct(leaf.shape, stored[first]["dtype"], sharding=getattr(leaf, "sharding", None))
    return found


def place(flat: types.FlatTree, target: types.FlatTree) -> types.FlatTree:
    """Every leaf on the devices its target names, in its dtype."""
    return {path: _placed(flat[path], leaf) for path, leaf in target.items()}


def _placed(leaf: Any, target: Any) -> jax.Array:
    if leaf.dtype != target.dtype:
        near = leaf if isinstance(leaf, np.ndarray) else jax.device_put(leaf, _in_own_memory(leaf.sharding))
        leaf = near.astype(target.dtype)
    return jax.device_put(leaf, getattr(target, "sharding", None))


def abstract(flat: types.FlatTree) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and (of arrays on devices) sharding of every leaf, in the devices' own memory."""
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_in_own_memory(getattr(leaf, "sharding", None)))
        for path, leaf in flat.items()
    }


def layer(leaf: jax.ShapeDtypeStruct, _index: int) -> jax.ShapeDtypeStruct:
    """One layer of a stacked leaf, sharded as the leaf is but for the layers axis."""
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec[1:]))
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)


def describe(flat: types.FlatTree) -> dict[str, dict[str, Any]]:
    """Shape and dtype of every leaf, for JSON."""
    return {path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in flat.items()}


def require_same(stored: Mapping[str, Mapping[str, Any]], wanted: types.FlatTree, *, where: str) -> None:
    """Raises `InputError`, path by path, unless `stored` (of `describe`) is what `wanted` asks for. A moment of the
    optimizer may be stored in more or less precision than it is asked for."""
    asked = describe(wanted)
    lines = []
    for path in sorted(asked.keys() | stored.keys()):
        if _fits(path, stored.get(path), asked.get(path)):
            continue
        old, new = (_shown(side.get(path)) for side in (stored, asked))
        hint = ""
        if path not in stored:
            hint = paths.did_you_mean(path, stored.keys() - asked.keys())
        lines.append(f"  {path}: {old} in the checkpoint, {new} in this run.{hint}")
    if lines:
        more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise types.InputError(
            f"To continue a run, its checkpoint must have the leaves of this model and optimizer: {where} differs in"
            f" {len(lines)}.\n"
            + "\n".join([*lines[:20], *more])
            + "\nContinue with the configuration the run was started with, or take only its weights with init_from."
        )


def _fits(path: str, stored: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> bool:
    if stored is None or asked is None or list(stored["shape"]) != list(asked["shape"]):
        return False
    both = {stored["dtype"], asked["dtype"]}
    return len(both) == 1 or (path.startswith("optimizer/") and both == {"float32", "bfloat16"})


def _shown(leaf: Mapping[str, Any] | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']}{list(leaf['shape'])}"
