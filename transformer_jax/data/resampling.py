"""Resizing of uint8 images, with one result whatever is installed.

| method | what it is |
|---|---|
| nearest | the pixel under the new pixel's centre |
| bilinear | two taps a direction at half-pixel centres, no antialiasing: the published recipes' |
| bilinear_antialias | the triangle widened when shrinking, so that every pixel counts |
| area | the mean over the new pixel's area: the published recipes' for `resize_small` |
| bicubic, bicubic_antialias | Keys' cubic (a = -1/2), four taps, or widened when shrinking |
| pillow_bilinear, pillow_bicubic, pillow_lanczos | Pillow's, antialiased: what torchvision and timm train with |

All but Pillow's are `tf.image.resize` followed by big_vision's cast to uint8, which cuts fractions off. `nearest` and
`bilinear` equal TensorFlow's to the bit (the same float32 arithmetic in the same order); the others are the exact
value, cut off, where TensorFlow's float32 sums may land just below a whole number: at most 1/255 apart, in few pixels.
"""

import functools
import math
import threading
import types as python_types
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "_height _width _channels"]
METHODS = (
    "nearest",
    "bilinear",
    "bilinear_antialias",
    "area",
    "bicubic",
    "bicubic_antialias",
    "pillow_bilinear",
    "pillow_bicubic",
    "pillow_lanczos",
)
_CACHE = 256
_BLOCK = 65536
"""Numbers worked on at a time: what the cache holds."""
_NUDGE = np.float32(1e-3)
"""More than the rounding errors of a float32 sum: what is a whole number must not be cut off to the one below."""
Taps = tuple[np.ndarray, np.ndarray]
"""For every new pixel the old ones it is made of, and their weights: arrays [tap, new]."""


def resize(image: Pixels, height: int, width: int, method: str = "bilinear") -> Pixels:
    """The image at another size."""
    if image.shape[:2] == (height, width):
        return image
    if method == "bilinear":
        return _bilinear(image, height, width)
    if method == "nearest":
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        return image[rows[:, None], columns]
    if method.startswith("pillow_"):
        return _pillow(image, height, width, method)
    return _weighted(image, height, width, method)


def _bilinear(image: Pixels, height: int, width: int) -> Pixels:
    channels = image.shape[-1]
    lines = _lines(image)
    left, right, across = _flat_pairs(image.shape[1], width, channels)
    out = np.empty((height, width * channels), np.uint8)
    for here, rows, upper, lower, down in _row_blocks(image.shape[0], height, width * channels):
        part = _SCRATCH.array(0, len(rows), lines.shape[1])
        part[:] = lines[rows]
        mixed = _between(part, left, right, across, 1)
        out[here] = _between(mixed, upper, lower, down, 0)
    return out.reshape(height, width, channels)


def _lines(image: Pixels) -> UInt8[np.ndarray, "_height _numbers"]:
    """Rows of interleaved channels, without a copy where whole pixels lie side by side: as in a crop."""
    height, width, channels = image.shape
    if image.strides[1:] != (channels, 1):
        image = np.ascontiguousarray(image)
    return np.lib.stride_tricks.as_strided(image, (height, width * channels), (image.strides[0], 1), writeable=False)


def _between(lines: np.ndarray, low: np.ndarray, high: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    """`low + weight * (high - low)` of the lines at these places."""
    shape = (len(lines), len(low)) if axis else (len(low), lines.shape[1])
    first = lines.take(low, axis, _SCRATCH.array(1 + axis, *shape), "clip")
    second = lines.take(high, axis, _SCRATCH.array(3 + axis, *shape), "clip")
    second -= first
    second *= weight
    second += first
    return second


class _Scratch(threading.local):
    """Memory of each thread that is used again: fresh memory costs a page fault every 4 kB, a third of the time."""

    def __init__(self) -> None:
        self.buffers: dict[int, np.ndarray] = {}

    def array(self, slot: int, rows: int, columns: int) -> np.ndarray:
        """Any numbers, float32: those of the slot's last array."""
        size = rows * columns
        if slot not in self.buffers or self.buffers[slot].size < size:
            self.buffers[slot] = np.empty(size, np.float32)
        return self.buffers[slot][:size].reshape(rows, columns)


_SCRATCH = _Scratch()


@functools.lru_cache(_CACHE)
def _pairs(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every new row: the two old ones it lies between, and the second one's weight."""
    scale = np.float32(size) / np.float32(new)
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    low = np.floor(at)
    first, second = np.maximum(low, 0), np.minimum(np.ceil(at), size - 1)
    return first.astype(np.intp), second.astype(np.intp), at - low


@functools.lru_cache(_CACHE)
def _flat_pairs(size: int, new: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_pairs` of columns, as positions in a line of interleaved channels."""
    low, high, weight = _pairs(size, new)
    return _flat(low, channels), _flat(high, channels), np.repeat(weight, channels)


def _flat(at: np.ndarray, channels: int) -> np.ndarray:
    return (at[..., None] * channels + np.arange(channels)).reshape(*at.shape[:-1], -1)


@functools.lru_cache(_CACHE)
def _row_blocks(
    size: int, new: int, numbers: int
) -> list[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """`_pairs` of rows, a block at a time: the new rows, the old rows they need, and the pairs counted among those."""
    low, high, weight = _pairs(size, new)
    blocks = []
    for here in _blocks(new, numbers):
        rows, places = np.unique(np.concatenate([low[here], high[here]]), return_inverse=True)
        upper, lower = np.split(places, 2)
        blocks.append((here, rows, upper, lower, weight[here, None]))
    return blocks


def _blocks(rows: int, numbers: int) -> Iterator[slice]:
    step = max(1, _BLOCK // numbers)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


@functools.lru_cache(_CACHE)
def _nearest(size: int, new: int) -> np.ndarray:
    scale = np.float32(size) / np.float32(new)
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(at.astype(np.intp), size - 1)


def _weighted(image: Pixels, height: int, width: int, method: str) -> Pixels:
    channels = image.shape[-1]
    rows, row_weights = _taps(method, image.shape[0], height)
    columns, column_weights = _flat_taps(method, image.shape[1], width, channels)
    lines = _lines(image)
    out = np.empty((height, width * channels), np.uint8)
    for here in _blocks(height, max(width * channels, lines.shape[1])):
        mixed = _mix(lines, rows[:, here], row_weights[:, here, None], 0)
        mixed = _mix(mixed, columns, column_weights, 1)
        mixed += _NUDGE
        out[here] = np.clip(mixed, 0, 255, out=mixed)
    return out.reshape(height, width, channels)


def _mix(lines: np.ndarray, at: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """The weighted sum of the lines at each tap."""
    shape = (len(lines), at.shape[1]) if axis else (at.shape[1], lines.shape[1])
    total, term = _SCRATCH.array(1 + axis, *shape), _SCRATCH.array(3, *shape)
    for tap, weight in enumerate(weights):
        into = term if tap else total
        if axis:
            lines.take(at[tap], 1, into, "clip")
        else:
            into[:] = lines[at[tap]]
        into *= weight
        if tap:
            total += term
    return total


@functools.lru_cache(_CACHE)
def _taps(method: str, size: int, new: int) -> Taps:
    if method == "area":
        return _area_taps(size, new)
    kernel, radius = (_triangle, 1) if method.startswith("bilinear") else (_cubic, 2)
    return _kernel_taps(size, new, kernel, radius, antialias=method.endswith("_antialias"))


@functools.lru_cache(_CACHE)
def _flat_taps(method: str, size: int, new: int, channels: int) -> Taps:
    at, weights = _taps(method, size, new)
    return _flat(at, channels), np.repeat(weights, channels, axis=1)


def _area_taps(size: int, new: int) -> Taps:
    """The old pixels under each new one, and the shares of it that they cover."""
    edges = np.arange(new + 1) * (size / new)
    first = np.floor(edges[:-1] + 1e-9).astype(np.intp)
    taps = int(np.max(np.ceil(edges[1:] - 1e-9).astype(np.intp) - first))
    at = first + np.arange(taps)[:, None]
    share = np.clip(np.minimum(at + 1, edges[1:]) - np.maximum(at, edges[:-1]), 0, None) * (new / size)
    return np.minimum(at, size - 1), share.astype(np.float32)


def _kernel_taps(
    size: int, new: int, kernel: Callable[[np.ndarray], np.ndarray], radius: int, *, antialias: bool
) -> Taps:
    """The old pixels within the kernel around each new one's centre; those inside the image share the weight."""
    centre = (np.arange(new) + 0.5) * (size / new) - 0.5
    wide = max(size / new, 1.0) if antialias else 1.0
    if not antialias:
        centre = np.rint(centre * 1024) / 1024  # TensorFlow looks its cubic up in a table of 1024 steps
    first = np.floor(centre - radius * wide).astype(np.intp)
    at = first + np.arange(math.ceil(2 * radius * wide) + 2)[:, None]
    weights = np.where((at >= 0) & (at < size), kernel(np.abs(at - centre) / wide), 0.0)
    weights /= weights.sum(0)
    used = np.any(weights != 0, axis=1)
    return np.clip(at[used], 0, size - 1), weights[used].astype(np.float32)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _pillow(image: Pixels, height: int, width: int, method: str) -> Pixels:
    from PIL import Image

    resample = Image.Resampling[method.removeprefix("pillow_").upper()]
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


@functools.cache
def opencv() -> python_types.ModuleType | None:
    """OpenCV where it is installed (`[images]` extra), told to leave threads to us."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(0)
    return cv2
