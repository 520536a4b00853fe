"""The neutral layout of a checkpoint: every leaf under its plain path, one per layer, on no particular mesh.

In memory the layers of a stack are one array with a leading axis. A state that one process can see whole goes through
host memory, where nothing has to be compiled; one that is spread over processes is cut and joined inside `jit`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import paths, types
from transformer_jax.parallel import memory

_Items = tuple[tuple[str, Any], ...]


def to_neutral(flat: types.FlatTree, stacks: Mapping[str, int], *, spread: bool) -> types.FlatTree:
    """Leaves to write: a copy, so that the step may overwrite (donate) the original while they are being written."""
    if spread:
        near = {path: jax.device_put(leaf, _in_own_memory(leaf.sharding)) for path, leaf in flat.items()}
        return _cut(tuple(stacks.items()), _shardings(paths.unstack(abstract(near), stacks, take=layer)))(near)
    return paths.unstack({path: np.array(leaf) for path, leaf in jax.device_get(flat).items()}, stacks)


def from_neutral(neutral: types.FlatTree, stacks: Mapping[str, int], target: types.FlatTree) -> types.FlatTree:
    """The inverse of `to_neutral`: numpy leaves stay numpy, arrays take the shardings of `target`."""
    if all(isinstance(leaf, np.ndarray) for leaf in neutral.values()):
        return paths.stack(neutral, stacks, np.stack)
    where = tuple((path, _in_own_memory(leaf.sharding)) for path, leaf in target.items())
    return _joined(tuple(stacks.items()), where)(neutral)


@functools.lru_cache(maxsize=8)
def _cut(stacks: _Items, shardings: _Items) -> Callable[[types.FlatTree], types.FlatTree]:
    def cut(flat: types.FlatTree) -> types.FlatTree:
        return paths.unstack({path: jnp.copy(leaf) for path, leaf in flat.items()}, dict(stacks))

    return jax.jit(cut, out_shardings=dict(shardings))


@functools.lru_cache(maxsize=8)
def _joined(stacks: _Items, shardings: _Items) -> Callable[[types.FlatTree], types.FlatTree]:
    return jax.jit(lambda flat: paths.stack(flat, dict(stacks), jnp.stack), out_shardings=dict(shardings))


def _shardings(flat: types.FlatTree) -> _Items:
    return tuple((path, leaf.sharding) for path, leaf in flat.items())


def _in_own_memory(sharding: Any) -> Any:
    """The same sharding in the devices' own memory, where that of the host has it."""
    if isinstance(sharding, jax.sharding.NamedSharding) and sharding.memory_kind == memory.HOST:
        return jax.sharding.NamedSharding(sharding.mesh, sharding.spec)
    return sharding


def place(flat: types.FlatTree, target: types.FlatTree) -> types.FlatTree:
    """Every leaf on the devices its target names."""
    return {path: jax.device_put(flat[path], getattr(leaf, "sharding", None)) for path, leaf in target.items()}


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
    """Raises `InputError`, path by path, unless `stored` (of `describe`) is what `wanted` asks for."""
    asked = describe(wanted)
    lines = []
    for path in sorted(asked.keys() | stored.keys()):
        old, new = (_shown(side.get(path)) for side in (stored, asked))
        if old == new:
            continue
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


def _shown(leaf: Mapping[str, Any] | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']}{list(leaf['shape'])}"
