"""Changing parameters to fit another model: position embeddings onto another grid, patches of another size, heads.

Resizing is linear along each axis, so it is two small matrices, whatever the rule. `scipy.ndimage.zoom(order=1)`, which
the fine-tuning of the ViT paper used, is `align_corners`; PyTorch and `jax.image.resize` mean `half_pixel`.
"""

import math
import re
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from transformer_jax import types

Grid = tuple[int, int]
Array = np.ndarray | jax.Array


def resize_position(
    position: Float[Array, "source embed"],
    source: Grid,
    target: Grid,
    *,
    prefix: int = 0,
    target_prefix: int | None = None,
    method: str = "align_corners",
) -> Float[Array, "target embed"]:
    """A position embedding of one grid (height, width) for another. Works on NumPy arrays, and under `jax.jit`.

    The first `prefix` rows belong to tokens outside the grid (class token, registers): they stay as they are. With
    another `target_prefix`, the last of them are dropped, or zeros added. The same grid is the
    identity, bit for bit. Raises `InputError` when the rows are not those of the source grid.
    """
    height, width = grid_of(position.shape[0], prefix=prefix, grid=source)
    front = _refit(position[:prefix], prefix if target_prefix is None else target_prefix)
    grid = position[prefix:]
    if source != target:
        rows, columns = (matrix(method, *sizes) for sizes in zip(source, target, strict=True))
        embed = position.shape[1]
        tall = (rows @ grid.reshape(height, width * embed)).reshape(target[0], width, embed)
        grid = (columns[None] @ tall).reshape(-1, embed).astype(position.dtype)
    return _concatenate(front, grid)


def resize_patch(
    kernel: Float[np.ndarray, "height width channels embed"], target: Grid
) -> Float[np.ndarray, "new_height new_width channels embed"]:
    """A patch embedding for patches of another size (FlexiViT, 2212.08013, section 3.4).

    Bilinear resizing of a patch (centres of pixels, no antialiasing) is a matrix. The new kernel is the pseudo-inverse
    of its transpose, times the old one: for larger patches its product with a resized patch is that of the old one
    with the patch itself; for smaller ones it is the nearest in the mean over white noise.
    """
    height, width, channels, embed = kernel.shape
    rows, columns = (matrix("half_pixel", *sizes) for sizes in zip((height, width), target, strict=True))
    inverse = np.linalg.pinv(np.kron(rows, columns).T)
    flat = inverse @ kernel.astype(np.float64).reshape(height * width, channels * embed)
    return flat.reshape(*target, channels, embed).astype(kernel.dtype)


def split_heads(params: types.FlatTree, heads: int) -> types.FlatTree:
    """Attention whose heads lie side by side, `heads` of them. Raises `InputError` when they do not divide it."""
    split = {}
    for path, leaf in params.items():
        found = re.search(r"attention/(query|key|value|out)/(kernel|bias)$", path)
        if not found or found.groups() == ("out", "bias"):
            split[path] = leaf
            continue
        first = found[1] == "out"
        size = leaf.shape[0] * leaf.shape[1] if first else leaf.shape[-2] * leaf.shape[-1]
        if size % heads:
            raise types.InputError(f"The heads must divide the width of {path!r}: {heads} heads, width {size}.")
        sizes = (heads, size // heads)
        split[path] = leaf.reshape((*sizes, leaf.shape[-1]) if first else (*leaf.shape[:-2], *sizes))
    return split


def matrix(method: str, source: int, target: int) -> Float[np.ndarray, "target source"]:
    """The weights that resize one axis by a method of `METHODS`; every row sums to one."""
    if method not in METHODS:
        raise types.InputError(f"A position resize must be one of {', '.join(METHODS)}, not {method!r}.")
    weights = METHODS[method](source, target)
    return weights / weights.sum(axis=1, keepdims=True)


def grid_of(tokens: int, *, prefix: int, grid: Grid | None = None) -> Grid:
    """The grid of an embedding with `tokens` rows: the one that is given, checked, else the square that fits."""
    if grid is None:
        side = math.isqrt(max(tokens - prefix, 0))
        grid = (side, side)
    if prefix + math.prod(grid) != tokens or tokens == prefix:
        raise types.InputError(
            f"A position embedding must have a row a token: {tokens} rows are not {prefix} + {grid[0]} x {grid[1]}."
            " Name its grid (height, width) and its number of prefix tokens."
        )
    return grid


def _align_corners(source: int, target: int) -> np.ndarray:
    """The first and last points of both grids coincide."""
    at = np.arange(target) * ((source - 1) / (target - 1) if target > 1 else 0.0)
    return _triangle(at, source)


def _half_pixel(source: int, target: int) -> np.ndarray:
    """Points are centres of pixels; the outermost are clamped."""
    at = (np.arange(target) + 0.5) * (source / target) - 0.5
    return _triangle(at.clip(0, source - 1), source)


def _half_pixel_antialias(source: int, target: int) -> np.ndarray:
    """As `half_pixel`, the triangle widened when shrinking, so that every source point counts."""
    scale = max(source / target, 1.0)
    at = (np.arange(target) + 0.5) * (source / target) - 0.5
    return _triangle(at, source, scale)


def _triangle(at: np.ndarray, source: int, scale: float = 1.0) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(source)) / scale)


METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    "align_corners": _align_corners,
    "half_pixel": _half_pixel,
    "half_pixel_antialias": _half_pixel_antialias,
}


def _refit(front: Array, count: int) -> Array:
    missing = count - front.shape[0]
    if missing <= 0:
        return front[:count]
    return _concatenate(front, np.zeros((missing, front.shape[1]), front.dtype))


def _concatenate(first: Array, second: Array) -> Array:
    xp = np if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) else jax.numpy
    return xp.concatenate([first, second])
