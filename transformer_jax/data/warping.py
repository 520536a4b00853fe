"""Affine maps of uint8 images: bilinear for batches of small ones, nearest for one of any size."""

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from transformer_jax.data import resampling
from transformer_jax.data.operation import Pixels

_BLOCK = 16384
"""Pixels warped at a time. Larger temporaries go back to the system every time: page faults, a fourfold cost."""
_INT16 = 1 << 14


def nearest(image: Pixels, inverse: Float32[np.ndarray, "2 3"], fill: int) -> Pixels:
    """New pixel (x, y) is the old one nearest to `inverse @ (x, y, 1)`, halves away from zero; (0, 0) is a corner.

    In float32, term by term: TensorFlow's `ImageProjectiveTransformV3`, to the bit.
    """
    height, width = image.shape[:2]
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    columns, rows = (_places(line, x, y) for line in inverse)
    if columns.shape[0] == rows.shape[1] == 1 and _whole_steps(columns) and _whole_steps(rows):
        return _shifted(image, int(rows[0, 0]), int(columns[0, 0]), fill)
    at = np.empty((height, width, 2), np.int16 if max(height, width) < _INT16 else np.int32)
    at[..., 0], at[..., 1] = (np.clip(place, -1, size) for place, size in ((columns, width), (rows, height)))
    return _gather(image, at, fill)


def _places(line: Float32[np.ndarray, " 3"], x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "_height _width"]:
    """Where every new pixel comes from in one direction; one row or column where the other does not matter."""
    of_x, of_y, shift = line
    place = of_x * x if of_y == 0 else of_y * y if of_x == 0 else of_x * x + of_y * y
    place += shift
    place[place == -0.5] = -1  # the one half that floor would bring inside
    place += np.float32(0.5)
    return np.floor(place, out=place)


def _whole_steps(places: np.ndarray) -> bool:
    return bool(np.all(np.diff(places.ravel()) == 1))


def _shifted(image: Pixels, down: int, right: int, fill: int) -> Pixels:
    """New pixel (0, 0) is the old one at (down, right)."""
    height, width = image.shape[:2]
    out = np.full_like(image, fill)
    new, old = (
        tuple(
            slice(max(0, sign * by), max(0, size + min(0, sign * by))) for by, size in ((down, height), (right, width))
        )
        for sign in (-1, 1)
    )
    out[new] = image[old]
    return out


def _gather(image: Pixels, at: Int[np.ndarray, "height width 2"], fill: int) -> Pixels:
    """The pixels at (column, row), what is outside filled."""
    cv2 = resampling.opencv()
    if cv2 is not None and at.dtype == np.int16:
        border = (fill,) * image.shape[-1]
        return cv2.remap(image, at, None, cv2.INTER_NEAREST, borderValue=border).reshape(image.shape)
    (height, width), (column, row) = image.shape[:2], np.moveaxis(at, -1, 0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = row.astype(np.intp) * width + column
    return np.where(inside[..., None], image.reshape(height * width, -1).take(flat, 0, mode="clip"), np.uint8(fill))


def warp(
    images: UInt8[np.ndarray, "batch height width channels"],
    inverse: Float[np.ndarray, "batch 2 3"],
    fill: int = 0,
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Affine maps of small images, bilinear: new pixel (x, y) is old pixel `inverse @ (x, y, 1)`, from the centre."""
    block = max(1, _BLOCK // images[0].size)
    return np.concatenate(
        [_warp(images[i : i + block], inverse[i : i + block], fill) for i in range(0, len(images), block)]
    )


def _warp(images: np.ndarray, inverse: np.ndarray, fill: int) -> np.ndarray:
    batch, height, width, channels = images.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - (width - 1) / 2).ravel(), (y - (height - 1) / 2).ravel()
    points = np.stack([x, y, np.ones_like(x)])
    at = inverse.astype(np.float32) @ points
    # A border of two filled pixels on every side stands for everything outside.
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=fill).astype(np.uint32)
    column = np.clip(at[:, 0] + ((width - 1) / 2 + 2), 0, width + 2)
    row = np.clip(at[:, 1] + ((height - 1) / 2 + 2), 0, height + 2)
    left, top = column.astype(np.int32), row.astype(np.int32)
    dx, dy = (column - left.astype(np.float32))[..., None], (row - top.astype(np.float32))[..., None]
    # The four pixels a new one lies between, in the bytes of one word: one gather instead of four.
    right, below = np.roll(padded, -1, 2), np.roll(padded, -1, 1)
    words = padded | right << 8 | below << 16 | np.roll(right, -1, 1) << 24
    start = np.arange(batch, dtype=np.int32)[:, None] * ((height + 4) * (width + 4)) + top * (width + 4) + left
    four = words.reshape(-1, channels).take(start, 0, mode="clip")
    nw, ne, sw, se = (((four >> shift) & 255).astype(np.float32) for shift in (0, 8, 16, 24))
    upper, lower = nw + dx * (ne - nw), sw + dx * (se - sw)
    out = upper + dy * (lower - upper) + np.float32(0.5)
    return out.astype(np.uint8).reshape(images.shape)
