"""A digest of every leaf, so that a checkpoint can prove itself: Orbax stores arrays without a checksum.

The digest of a leaf is `sum(word[i] * weight(i)) mod 2^32` over its bits as unsigned words, `weight(i) = (i * G) | 1`
and `i` the index in row-major order. Weights are odd, so any single flipped bit changes the sum; integer addition has
no order, so the sum is the same on every sharding and any number of processes.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import paths, types
from transformer_jax.parallel import multihost

_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: neighbouring elements get unrelated weights
_CHUNK = 1 << 20


def digests(flat: types.FlatTree, stacks: Mapping[str, int]) -> dict[str, int]:
    """The digest of each leaf under its unstacked path, the same on every process.

    Arrays in host memory, the CPU's included, are summed with numpy (nothing to compile), where they are spread over
    processes each the part it has; those of other devices inside one jit, where they are.
    """
    near = {path: leaf for path, leaf in flat.items() if _on_host(leaf)}
    spread = {path for path, leaf in near.items() if not getattr(leaf, "is_fully_addressable", True)}
    own = {path: _host_sums(path, leaf, stacks) for path, leaf in near.items()}
    parts = multihost.gather([own[path] for path in sorted(spread)]) if spread else []
    for path, sums in zip(sorted(spread), zip(*parts, strict=True), strict=True):
        own[path] = {name: sum(part[name] for part in sums) % 2**32 for name in own[path]}
    found = {name: value for sums in own.values() for name, value in sums.items()}
    far = {path: leaf for path, leaf in flat.items() if path not in near}
    if far:
        summed = jax.device_get(_on_device(tuple(sorted(stacks.items())), _everywhere(far))(far))
        found |= {path: int(value) for path, value in paths.unstack(summed, stacks).items()}
    return found


def digest(array: np.ndarray) -> int:
    """The digest of one array."""
    words = np.ascontiguousarray(array).reshape(-1).view(_word(array.dtype))
    total = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK].astype(np.uint32)
        index = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        total += int(np.dot(part, index * np.uint32(_GOLDEN) | np.uint32(1)))
    return total % 2**32


def _host_sums(path: str, leaf: Any, stacks: Mapping[str, int]) -> dict[str, int]:
    """What this process has of a leaf, summed: by layer where it is stacked."""
    layers = paths.unstack({path: leaf}, stacks, lambda _, layer: layer)
    if getattr(leaf, "is_fully_addressable", True):
        array = np.asarray(leaf)
        return {name: digest(array if name == path else array[layer]) for name, layer in layers.items()}
    # A part that several devices hold is counted once.
    pieces = [(shard.index, np.asarray(shard.data)) for shard in leaf.addressable_shards if shard.replica_id == 0]
    sums = dict.fromkeys(layers, 0)
    for index, data in pieces:
        start = [where.indices(size)[0] for where, size in zip(index, leaf.shape, strict=True)]
        for name, layer in layers.items():
            if name == path:
                sums[name] += _piece_sum(data, start, leaf.shape)
            elif start[0] <= layer < start[0] + len(data):
                sums[name] += _piece_sum(data[layer - start[0]], start[1:], leaf.shape[1:])
    return sums


def _piece_sum(data: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> int:
    """The share in the digest of an array of this shape that is due to a part of it, which starts there.

    Walked along its first axis, so that little more than the part itself is ever in memory.
    """
    rows = max(1, _CHUNK // max(1, math.prod(data.shape[1:])))
    if data.ndim == 0:
        return _block_sum(data, start, shape)
    return sum(_block_sum(data[at : at + rows], [start[0] + at, *start[1:]], shape) for at in range(0, len(data), rows))


def _block_sum(data: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> int:
    words = np.ascontiguousarray(data).reshape(*data.shape, 1).view(_word(data.dtype)).astype(np.uint32)
    index, stride = np.zeros(words.shape, np.uint32), 1
    sizes, starts = (*shape, words.shape[-1]), (*start, 0)
    for axis in reversed(range(words.ndim)):
        along = np.arange(starts[axis], starts[axis] + words.shape[axis], dtype=np.uint64) * np.uint64(stride)
        index += along.astype(np.uint32).reshape(-1, *(1,) * (words.ndim - 1 - axis))
        stride = stride * sizes[axis] % 2**32
    return int(np.sum(words * (index * np.uint32(_GOLDEN) | np.uint32(1)), dtype=np.uint32))


def _on_host(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array) or leaf.sharding.memory_kind in ("pinned_host", "unpinned_host"):
        return True
    return all(device.platform == "cpu" for device in leaf.sharding.device_set)


def _word(dtype: Any) -> np.dtype:
    """The unsigned type an element is read as: its own size, or several 32-bit words."""
    size = np.dtype(dtype).itemsize
    return np.dtype(f"uint{8 * min(size, 4)}")


def _device_sums(flat: types.FlatTree, stacks: tuple[tuple[str, int], ...]) -> types.FlatTree:
    """Of a leaf that is unstacked, one sum a layer; of any other, one."""
    split = {path for path in flat if path not in paths.unstack({path: flat[path]}, dict(stacks), lambda x, i: x)}
    return {path: jax.vmap(_device_sum)(leaf) if path in split else _device_sum(leaf) for path, leaf in flat.items()}


@functools.cache
def _on_device(stacks: tuple[tuple[str, int], ...], where: Any) -> Callable[[types.FlatTree], types.FlatTree]:
    """The sums of leaves as one program; `where` they lie is not left to the compiler, every process reads them."""
    placed = {} if where is None else {"out_shardings": where}
    return jax.jit(functools.partial(_device_sums, stacks=stacks), **placed)


def _everywhere(flat: types.FlatTree) -> Any:
    """On every device of the leaves' mesh; `None` where they have none."""
    meshes = {getattr(leaf.sharding, "mesh", None) for leaf in flat.values()}
    mesh = meshes.pop() if len(meshes) == 1 else None
    return None if mesh is None else jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _device_sum(x: jax.Array) -> jax.Array:
    """`digest`, traced. The index is built from one iota an axis, so it shards as `x` does."""
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    words = jax.lax.bitcast_convert_type(x, _word(x.dtype)).astype(jnp.uint32)
    index, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(words * (index * np.uint32(_GOLDEN) | np.uint32(1)), dtype=jnp.uint32)
