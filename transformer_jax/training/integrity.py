"""A digest of every leaf, so that a checkpoint can prove itself: Orbax stores arrays without a checksum.

The digest of a leaf is `sum(word[i] * weight(i)) mod 2^32` over its bits as unsigned words, `weight(i) = (i * G) | 1`
and `i` the index in row-major order. Weights are odd, so any single flipped bit changes the sum; integer addition has
no order, so the sum is the same on every sharding and any number of processes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import paths, types

_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: neighbouring elements get unrelated weights
_CHUNK = 1 << 20


def digests(flat: types.FlatTree, stacks: Mapping[str, int]) -> dict[str, int]:
    """The digest of each leaf under its unstacked path. Arrays in host memory, the CPU's included, are summed with
    numpy (nothing to compile); those of other devices inside one jit, where they are."""
    if all(_on_host(leaf) for leaf in flat.values()):
        unstacked = paths.unstack({path: np.asarray(leaf) for path, leaf in flat.items()}, stacks)
        return {path: digest(leaf) for path, leaf in unstacked.items()}
    summed = jax.device_get(_on_device(flat, tuple(sorted(stacks.items()))))
    return {path: int(value) for path, value in paths.unstack(summed, stacks).items()}


def digest(array: np.ndarray) -> int:
    """The digest of one array."""
    words = np.ascontiguousarray(array).reshape(-1).view(_word(array.dtype))
    total = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK].astype(np.uint32)
        index = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        total += int(np.dot(part, index * np.uint32(_GOLDEN) | np.uint32(1)))
    return total % 2**32


def _on_host(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return True
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.sharding.device_set)


def _word(dtype: Any) -> np.dtype:
    """The unsigned type an element is read as: its own size, or several 32-bit words."""
    size = np.dtype(dtype).itemsize
    return np.dtype(f"uint{8 * min(size, 4)}")


def _device_sums(flat: types.FlatTree, stacks: tuple[tuple[str, int], ...]) -> types.FlatTree:
    """Of a leaf that is unstacked, one sum a layer; of any other, one."""
    split = {path for path in flat if path not in paths.unstack({path: flat[path]}, dict(stacks), lambda x, i: x)}
    return {path: jax.vmap(_device_sum)(leaf) if path in split else _device_sum(leaf) for path, leaf in flat.items()}


_on_device = jax.jit(_device_sums, static_argnums=1)


def _device_sum(x: jax.Array) -> jax.Array:
    """`digest`, traced. The index is built from one iota an axis, so it shards as `x` does."""
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    words = jax.lax.bitcast_convert_type(x, _word(x.dtype)).astype(jnp.uint32)
    index, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(words * (index * np.uint32(_GOLDEN) | np.uint32(1)), dtype=jnp.uint32)
