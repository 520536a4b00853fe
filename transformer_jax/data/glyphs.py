"""The pretraining corpus: letters and digits of many typefaces, bent and blurred into something like handwriting.

62 classes, as many examples as asked for, nothing to download and nothing stored: example i is a pure function of
(seed, i), computed when it is read, a batch at a time. A distance field (`typefaces`) is sampled along an affine map
and a smooth displacement, thresholded at a random stroke thickness, lowered to a random resolution and back, and
given contrast, noise and, now and then, the opposite polarity.

With `lookalikes=True` the label of an example is a set: every class its character may be taken for. That is what ReaL
is to ImageNet (2006.07159), embedded: judged so, nobody is blamed for an o that was an O, and one example in fifty is
left without any label, as some images of ReaL are.

The same bits in any batch and on any machine with the same fonts: random numbers are hashes of (seed, i, k), and the
two matrix products work on small whole numbers, which float32 adds exactly in whatever order.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8, UInt16, UInt64

from transformer_jax import paths, types
from transformer_jax.data import order, typefaces, views

SPLITS = ("train", "validation")
VALIDATION_SIZE = 2000
CLASS_NAMES = tuple(typefaces.CHARACTERS)
LOOKALIKES = ("0Oo", "1Il", "Cc", "Pp", "Ss", "Vv", "Ww", "Xx", "Zz")
"""Characters alike when each fills its box, as they do here. Their templates overlap as those of few other pairs do."""
_UNLABELLED = 50
"""One example in so many has no label."""
_VERSION = "1"
_BLOCK = 128
"""Examples computed together: enough to pay for the calls, few enough for the cache."""

_SCALARS = 17
_CONTROLS = 4
"""Control points of the displacement, along one axis."""
_UNIT = 64
"""Weights of the matrix products are multiples of 1/64."""
_COARSE = (0.5, 0.5, 0.5, 0.625, 0.75, 1.0)
"""The resolutions an example may be lowered to, as a share of the image's: each entry is equally likely."""


def open(
    split: str = "train", *, size: int = 200_000, seed: int = 0, image_size: int = 16, lookalikes: bool = False
) -> "Glyphs":
    """One whole split: `size` training examples, or 2,000 validation examples of an independent stream."""
    return Glyphs(split, size=size, seed=seed, image_size=image_size, lookalikes=lookalikes)


class Glyphs:
    """Examples computed when they are read. See the module's docstring."""

    in_memory = True

    def __init__(self, split: str, *, size: int, seed: int, image_size: int, lookalikes: bool = False):
        if split not in SPLITS:
            raise types.InputError(
                f"glyphs has the splits {', '.join(SPLITS)}. Not: {split!r}.{paths.did_you_mean(split, SPLITS)}"
            )
        if size < 1 or not 8 <= image_size <= 64:
            raise types.InputError(
                f"glyphs has at least 1 example, of 8 to 64 pixels a side. Asked: size={size}, image_size={image_size}."
            )
        self.name = f"glyphs {split}"
        self.class_names: tuple[str, ...] = CLASS_NAMES
        self.num_classes = len(CLASS_NAMES)
        self.image_size = image_size
        self._length = size if split == "train" else VALIDATION_SIZE
        self._stream = np.uint64(order.mix(seed, SPLITS.index(split)))
        self.multilabel = lookalikes
        self.fingerprint = f"glyphs:{split}:{self._length}:{_VERSION}:seed={seed}:image_size={image_size}"
        self.fingerprint += ":lookalikes" * lookalikes
        typefaces.templates()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        images, labels = self.images(indices), np.asarray(indices, np.int64) % self.num_classes
        return [
            {"image": image, "label": self._label(index, label), "id": f"{self.name}[{index}]"}
            for image, label, index in zip(images, labels.tolist(), indices, strict=True)
        ]

    def _label(self, index: int, label: int) -> int | Int32[np.ndarray, " labels"]:
        if not self.multilabel:
            return label
        without = order.mix(int(self._stream), int(index)) % _UNLABELLED == 0
        return np.empty(0, np.int32) if without else _alike()[label]

    def labels(self) -> Int64[np.ndarray, " batch"]:
        """The classes take turns, so every stretch is balanced."""
        views.require_single(self)
        return np.arange(self._length) % self.num_classes

    def images(self, indices: Sequence[int]) -> UInt8[np.ndarray, "batch size size 1"]:
        """Many images in one array: what `__getitems__` hands out one by one."""
        at = np.asarray(indices, np.int64)
        if at.size and not (0 <= np.min(at) and np.max(at) < self._length):
            raise IndexError(
                f"{self.name} holds {self._length} examples; asked for numbers {np.min(at)} to {np.max(at)}"
            )
        blocks = [at[start : start + _BLOCK] for start in range(0, len(at), _BLOCK)]
        drawn = [_draw(self._stream, block, block % self.num_classes, self.image_size) for block in blocks]
        return np.concatenate(drawn or [np.empty((0, self.image_size, self.image_size), np.uint8)])[..., None]


@functools.cache
def _alike() -> list[Int32[np.ndarray, " labels"]]:
    """The classes every class may be taken for, itself among them, in order."""
    sets = {character: alike for alike in LOOKALIKES for character in alike}
    return [np.array(sorted(map(CLASS_NAMES.index, sets.get(name, name))), np.int32) for name in CLASS_NAMES]


def _draw(
    stream: np.uint64, indices: Int64[np.ndarray, " batch"], labels: Int64[np.ndarray, " batch"], size: int
) -> UInt8[np.ndarray, "batch size size"]:
    batch, bends = len(indices), 2 * _CONTROLS**2
    words = _random(stream, indices, _SCALARS + bends + -(-size * size // 4))
    u = (words[:, :_SCALARS] >> np.uint64(40)).astype(np.float32).T * np.float32(2**-24)
    controls = (words[:, _SCALARS : _SCALARS + bends] >> np.uint64(54)).astype(np.float32) - 512
    noise = words[:, _SCALARS + bends :].copy().view(np.uint16)[:, : size * size]

    faces = (u[0] * len(typefaces.FACES)).astype(np.int64)
    x, y = _positions(u[1:8], controls.reshape(batch, 2, _CONTROLS, _CONTROLS), size)
    ink = _ink(faces, labels, x, y, u[8:10])
    levels = np.rint(255 * ink).reshape(batch, size, size)
    resampled = _resampling(size)[(u[10] * len(_COARSE)).astype(np.int64)]
    levels = resampled @ levels @ resampled.transpose(0, 2, 1) * np.float32(_UNIT**-2)
    return _weathered(levels.reshape(batch, -1), u[11:17], noise).reshape(batch, size, size)


def _ink(faces, labels, x, y, u: Float32[np.ndarray, "2 batch"]) -> Float32[np.ndarray, "batch pixels"]:
    """How much of every pixel a stroke of random thickness covers, its edge randomly soft: 0 to 1."""
    templates = typefaces.templates()
    distance = _sample(templates.distance, faces * len(CLASS_NAMES) + labels, x, y)
    half_width = templates.half_width[faces, labels]
    grow = np.maximum(_between(u[0], 0.07, 0.16) - half_width, -0.5 * half_width)  # hairlines of a serif face survive
    softness = _between(u[1], 0.05, 0.12)
    return np.clip(0.5 + (grow[:, None] - distance) / softness[:, None], 0, 1)


def _weathered(
    levels: Float32[np.ndarray, "batch pixels"],
    u: Float32[np.ndarray, "6 batch"],
    noise: UInt16[np.ndarray, "batch pixels"],
) -> UInt8[np.ndarray, "batch pixels"]:
    """Grey levels on a background, of less contrast, some noisy, some dark on light."""
    background = np.where(u[0] < 0.2, _between(u[1], 0.0, 50.0), 0)
    contrast = _between(u[2], 0.85, 1.0) * (255 - background) / 255
    strength = np.where(u[3] < 0.2, _between(u[4], 0.0, 80.0), 0) * np.float32(2**-16)
    levels = background[:, None] + contrast[:, None] * levels
    levels += (noise - np.float32(2**15)) * strength[:, None]
    levels = np.where(u[5][:, None] < 0.1, 255 - levels, levels)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _random(stream: np.uint64, indices: Int64[np.ndarray, " batch"], count: int) -> UInt64[np.ndarray, "batch count"]:
    """`count` words of every index: splitmix64 of (stream, index, word)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    start = _scramble(stream + (indices.astype(np.uint64) + np.uint64(1)) * golden)
    return _scramble(start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * golden)


def _scramble(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _between(u: Float32[np.ndarray, " batch"], low: float, high: float) -> Float32[np.ndarray, " batch"]:
    return np.float32(low) + np.float32(high - low) * u


def _positions(
    u: Float32[np.ndarray, "7 batch"], controls: Float32[np.ndarray, "batch 2 controls controls"], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where in its glyph's box every pixel looks: zoom, shift, rotation, slant and aspect, then the displacement."""
    grid = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)[None]
    zoom = 1 / _between(u[0], 0.88, 1.08)[:, None]
    column = ((grid - _between(u[1], -0.06, 0.06)[:, None]) * zoom)[:, None, :]
    row = ((grid - _between(u[2], -0.06, 0.06)[:, None]) * zoom)[:, :, None]
    half = _between(u[3], -0.12, 0.12)[:, None, None]  # tangent of half the angle: rotations without trigonometry
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    x, y = cosine * column + sine * row, cosine * row - sine * column
    x += _between(u[4], -0.35, 0.35)[:, None, None] * y
    x /= _between(u[5], 0.55, 1.15)[:, None, None]
    spline = _spline(size)
    strength = _between(u[6], 0.0, 0.16)[:, None, None, None] * np.float32(_UNIT**-2 / 512)
    bend = spline @ controls @ spline.T * strength
    return (x + bend[:, 0]).reshape(len(x), -1), (y + bend[:, 1]).reshape(len(x), -1)


def _sample(
    distance: Float32[np.ndarray, "faces characters side side"], templates: Int64[np.ndarray, " batch"], x, y
) -> Float32[np.ndarray, "batch pixels"]:
    """Distances at (x, y), in box units, between the four nearest template pixels."""
    side, last = typefaces.SIDE, np.float32(typefaces.SIDE - 1.001)
    x, y = (np.clip(v * typefaces.BOX + np.float32((side - 1) / 2), 0, last) for v in (x, y))
    left, top = x.astype(np.int32), y.astype(np.int32)
    x -= left
    y -= top
    corner = (templates[:, None].astype(np.int32) * side + top) * side + left
    flat = distance.reshape(-1)
    upper = flat.take(corner) * (1 - x) + flat.take(corner + 1) * x
    corner += side
    lower = flat.take(corner) * (1 - x) + flat.take(corner + 1) * x
    return upper * (1 - y) + lower * y


@functools.cache
def _spline(size: int) -> Float32[np.ndarray, "size controls"]:
    """Uniform cubic B-spline over the image, in 64ths."""
    t = (np.arange(size) + 0.5) / size * (_CONTROLS - 1)
    away = np.abs(t[:, None] - np.arange(_CONTROLS))
    weights = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6)
    return np.rint(weights * _UNIT).astype(np.float32)


@functools.cache
def _resampling(size: int) -> Float32[np.ndarray, "choices size size"]:
    """Down to each coarse resolution (area) and back up (linear), in 64ths; every row sums to 64."""
    matrices = []
    for share in _COARSE:
        coarse = round(share * size)
        edges = np.arange(size + 1) / size
        starts, stops = np.arange(coarse)[:, None] / coarse, np.arange(1, coarse + 1)[:, None] / coarse
        down = np.clip(np.minimum(edges[1:], stops) - np.maximum(edges[:-1], starts), 0, None) * coarse
        at = np.clip((np.arange(size) + 0.5) / size * coarse - 0.5, 0, coarse - 1)
        up = np.clip(1 - np.abs(at[:, None] - np.arange(coarse)), 0, None)
        matrix = np.rint(up @ down * _UNIT)
        matrix[np.arange(size), matrix.argmax(1)] += _UNIT - matrix.sum(1)
        matrices.append(matrix)
    return np.stack(matrices).astype(np.float32)
