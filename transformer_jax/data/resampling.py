"""Resizing and warping of uint8 images, with one result whatever is installed.

| method | what it is |
|---|---|
| nearest | the pixel under the new pixel's centre |
| bilinear | two taps a direction at half-pixel centres, no antialiasing: TensorFlow's, and the published recipes' |
| area | the exact mean over the new pixel's area |
| triangle, bicubic, lanczos | Pillow's filters, antialiased when shrinking |

`bilinear` is fixed-point arithmetic (weights in 1/256, one rounding at the end), so that OpenCV's exact kernel, an
optional accelerator, and NumPy agree to the last bit.
"""

import functools
import types as python_types

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "_height _width _channels"]
METHODS = ("nearest", "bilinear", "area", "triangle", "bicubic", "lanczos")
_CACHE = 256
_AREA_ROWS = 64
_BLOCK = 16384
"""Pixels warped at a time. Larger temporaries go back to the system every time: page faults, a fourfold cost."""


def resize(image: Pixels, height: int, width: int, method: str = "bilinear") -> Pixels:
    """The image at another size."""
    if image.shape[:2] == (height, width):
        return image
    if method == "bilinear":
        return _bilinear(image, height, width)
    if method == "nearest":
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        return image[rows[:, None], columns]
    if method == "area":
        return _area(image, height, width)
    return _filtered(image, height, width, method)


def _bilinear(image: Pixels, height: int, width: int) -> Pixels:
    cv2 = opencv()
    if cv2 is not None and image.shape[-1] <= 4:
        out = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        return out.reshape(height, width, image.shape[-1])
    channels = image.shape[-1]
    y0, y1, wy = _taps(image.shape[0], height)
    x0, x1, wx = _flat_taps(image.shape[1], width, channels)
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    # 8-bit pixel times 8-bit weight fits 16 bits, and both directions fit 32: no rounding before the end.
    rows = lines.take(y0, 0) * (256 - wy)
    rows += lines.take(y1, 0) * wy
    out = rows.take(x0, 1, mode="clip") * (256 - wx)
    out += rows.take(x1, 1, mode="clip") * wx
    out += 1 << 15
    out >>= 16
    return out.astype(np.uint8).reshape(height, width, channels)


@functools.lru_cache(_CACHE)
def _taps(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every new row: the two old ones it lies between, and the second one's weight in 1/256."""
    at = (1.0 / (new / size)) * (np.arange(new) + 0.5) - 0.5
    low = np.floor(at).astype(np.int64)
    weight = np.rint((at - low) * 256).astype(np.uint16)
    weight[(low < 0) | (low >= size - 1)] = 0
    low = np.clip(low, 0, size - 1)
    return low, np.minimum(low + 1, size - 1), weight[:, None]


@functools.lru_cache(_CACHE)
def _flat_taps(size: int, new: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_taps` of columns, as positions in a line of interleaved channels."""
    low, high, weight = _taps(size, new)
    channel = np.arange(channels)
    flat = [(at[:, None] * channels + channel).ravel() for at in (low, high)]
    return flat[0], flat[1], np.repeat(weight.ravel(), channels).astype(np.uint32)


@functools.lru_cache(_CACHE)
def _nearest(size: int, new: int) -> np.ndarray:
    return np.minimum(((np.arange(new) + 0.5) * (size / new)).astype(np.int64), size - 1)


def _area(image: Pixels, height: int, width: int) -> Pixels:
    channels = image.shape[-1]
    rows, row_weights = _area_taps(image.shape[0], height, 1)
    columns, column_weights = _area_taps(image.shape[1], width, channels)
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    out = np.empty((height, width * channels), np.uint8)
    for start in range(0, height, _AREA_ROWS):
        here = slice(start, start + _AREA_ROWS)
        mixed = _mix(lines, 0, rows[:, here], row_weights[:, here, None])
        out[here] = _mix(mixed, 1, columns, column_weights) + np.float32(0.5)
    return out.reshape(height, width, channels)


def _mix(lines: np.ndarray, axis: int, at: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sum of the lines at each tap."""
    total = lines.take(at[0], axis, mode="clip") * weights[0]
    for tap in range(1, len(at)):
        total += lines.take(at[tap], axis, mode="clip") * weights[tap]
    return total


@functools.lru_cache(_CACHE)
def _area_taps(size: int, new: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The old pixels under each new one, and the shares of it that they cover: arrays [tap, new * channels]."""
    edges = np.arange(new + 1) * (size / new)
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    taps = int(np.max(np.ceil(edges[1:] - 1e-9).astype(np.int64) - first))
    at = first + np.arange(taps)[:, None]
    share = np.clip(np.minimum(at + 1, edges[1:]) - np.maximum(at, edges[:-1]), 0, None) * (new / size)
    flat = np.minimum(at, size - 1)[:, :, None] * channels + np.arange(channels)
    return flat.reshape(taps, -1), np.repeat(share, channels, axis=1).astype(np.float32)


def _filtered(image: Pixels, height: int, width: int, method: str) -> Pixels:
    from PIL import Image

    kind = {"triangle": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}[method]
    resample = Image.Resampling[kind]
    if image.shape[-1] == 3:
        return np.array(Image.fromarray(image).resize((width, height), resample))
    bands = [Image.fromarray(image[..., i]).resize((width, height), resample) for i in range(image.shape[-1])]
    return np.stack([np.asarray(band) for band in bands], -1)


def mirror(image: Pixels) -> Pixels:
    """The image mirrored left to right, side by side in memory (NumPy alone copies a reversed view pixel by pixel)."""
    cv2 = opencv()
    if cv2 is None or image.shape[-1] > 4:
        return np.ascontiguousarray(image[:, ::-1])
    return cv2.flip(image, 1).reshape(image.shape)


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


@functools.cache
def opencv() -> python_types.ModuleType | None:
    """OpenCV where it is installed (`[images]` extra), told to leave threads to us."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(0)
    return cv2
