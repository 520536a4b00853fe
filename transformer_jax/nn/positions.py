"""Where a token is: tables of one row a token, learned or fixed.

A table covers the prefix tokens (class token) and then the grid, row by row. Fixed tables leave the prefix at zero.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from transformer_jax import types

Grid = tuple[int, int]


def sincos1d(length: int, width: int, *, temperature: float = 10_000.0) -> Float[np.ndarray, "length embed"]:
    """Sines in the first half of the features, cosines in the second (1706.03762, section 3.5, not interleaved)."""
    if width % 2:
        raise types.InputError(f"Position sincos1d needs a width divisible by 2: it is {width}. Choose another width.")
    return _waves(np.arange(length), width // 2, temperature).astype(np.float32)


def sincos2d(grid: Grid, width: int, *, temperature: float = 10_000.0) -> Float[np.ndarray, "length embed"]:
    """Half of the features for the column, half for the row (MoCo v3; 2205.01580), in reading order."""
    if width % 4:
        raise types.InputError(f"Position sincos2d needs a width divisible by 4: it is {width}. Choose another width.")
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    parts = [_waves(axis.reshape(-1), width // 4, temperature, inclusive=True) for axis in (columns, rows)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def fixed(name: str, grid: Grid, width: int, *, prefix: int = 0) -> Float[np.ndarray, "length embed"] | None:
    """The table of a position that is not learned, with `prefix` rows of zeros before it; `None` for none."""
    if name == "none":
        return None
    table = sincos1d(grid[0] * grid[1], width) if name == "sincos1d" else sincos2d(grid, width)
    return np.concatenate([np.zeros((prefix, width), np.float32), table])


def learned(length: int, width: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> nnx.Param:
    """A table to be learned, of small normal numbers."""
    return nnx.Param(0.02 * rngs.params.normal((length, width), param_dtype), axes=("length", "embed"))


def _waves(at: np.ndarray, count: int, temperature: float, inclusive: bool = False) -> np.ndarray:
    """Sines then cosines of `at`, wavelengths from 2 pi to 2 pi temperature (which `inclusive` reaches)."""
    steps = max(count - 1, 1) if inclusive else count
    angles = at[:, None] * temperature ** -(np.arange(count) / steps)[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


POSITIONS = ("learned", "sincos1d", "sincos2d", "none")
