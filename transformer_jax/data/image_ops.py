"""The ops every recipe is made of: decode, resize, crop, flip, pad."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from transformer_jax import types
from transformer_jax.data import colour, decoding, operation, resampling
from transformer_jax.data.operation import Example, Generators, ImageOp, PixelBatch, Pixels

_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class Decode(ImageOp):
    """The pixels of an encoded image, upright, with so many channels. Of decoded ones, the channels.

    `reduce=False` keeps `inception_crop` from decoding a large crop at a half or less of its size.
    """

    channels: int = 3
    decoder: str = "auto"
    reduce: bool = True

    def __post_init__(self) -> None:
        operation.require(self.channels in (1, 3, 4), self, "channels is 1, 3 or 4.")
        operation.require(self.decoder in decoding.DECODERS, self, f"decoder is one of {decoding.DECODERS}.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = example.get(self.key)
        if isinstance(image, bytes):
            image = decoding.decode(image, channels=self.channels, decoder=self.decoder)
            return {**example, self.key: image}
        return super().__call__(example, rng)

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        have = images.shape[-1]
        if have == self.channels:
            return images
        three = images[..., :3] if have > 2 else np.repeat(images[..., :1], 3, -1)
        if self.channels == 1:
            return colour.grey(three)
        if self.channels == 3:
            return np.ascontiguousarray(three)
        return np.concatenate([three, np.full_like(three[..., :1], 255)], -1)


@dataclasses.dataclass(frozen=True)
class Resize(ImageOp):
    """To this height and width (square when only one is given), whatever the aspect ratio was."""

    height: int
    width: int | None = None
    method: str = "bilinear"

    def __post_init__(self) -> None:
        _check_size(self, self.height, self.width)
        _check_method(self, self.method)

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        return resampling.resize(image, *operation.pair(self.height, self.width), self.method)


@dataclasses.dataclass(frozen=True)
class ResizeSmall(ImageOp):
    """The smaller side to this length, the aspect ratio kept."""

    size: int
    method: str = "area"

    def __post_init__(self) -> None:
        _check_size(self, self.size)
        _check_method(self, self.method)

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        sides = np.array(image.shape[:2], np.float32)
        # In float32, halves to even: as the published recipes', to the pixel.
        height, width = np.rint(sides * (np.float32(self.size) / np.min(sides))).astype(int).tolist()
        return resampling.resize(image, max(1, height), max(1, width), self.method)


@dataclasses.dataclass(frozen=True)
class CentralCrop(ImageOp):
    """The middle of the image."""

    height: int
    width: int | None = None

    def __post_init__(self) -> None:
        _check_size(self, self.height, self.width)

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        height, width = operation.pair(self.height, self.width)
        _check_fits(self, images, height, width)
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]


@dataclasses.dataclass(frozen=True)
class RandomCrop(ImageOp):
    """A window of this size, every position equally likely."""

    height: int
    width: int | None = None
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_size(self, self.height, self.width)

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        height, width = operation.pair(self.height, self.width)
        _check_fits(self, images, height, width)
        room = np.array([images.shape[1] - height + 1, images.shape[2] - width + 1])
        return windows(images, np.array([(rng.random(2) * room).astype(int) for rng in rngs]), height, width)


@dataclasses.dataclass(frozen=True)
class InceptionCrop(ImageOp):
    """A random part of the image, 5 to 100 per cent of its area, resized to this size (Szegedy et al. 2015).

    As TensorFlow's `sample_distorted_bounding_box` draws it for big_vision: aspect ratio uniform in
    `aspect_min .. aspect_max`, height uniform among those the area allows, the whole image after 100 misses. A part
    lower than the image never touches its last row, a narrower one never its last column: so the corner is drawn.
    """

    size: int | tuple[int, int]
    area_min: float = 5
    area_max: float = 100
    aspect_min: float = 3 / 4
    aspect_max: float = 1.33
    method: str = "bilinear"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_size(self, *operation.pair(self.size))
        _check_method(self, self.method)
        operation.require(0 < self.area_min <= self.area_max <= 100, self, "0 < area_min <= area_max <= 100 per cent.")
        operation.require(0 < self.aspect_min <= self.aspect_max, self, "0 < aspect_min <= aspect_max.")

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        top, left, height, width = self.box(image.shape[0], image.shape[1], rng)
        crop = image[top : top + height, left : left + width]
        return resampling.resize(crop, *operation.pair(self.size), self.method)

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the part of an image of this size."""
        low, high = (per_cent / 100 * height * width for per_cent in (self.area_min, self.area_max))
        for _ in range(_ATTEMPTS):
            draw, pick, down, right = rng.random(4).tolist()
            aspect = self.aspect_min + draw * (self.aspect_max - self.aspect_min)
            tallest = min(round(math.sqrt(high / aspect)), math.ceil((width + 0.5) / aspect) - 1, height)
            shortest = min(round(math.sqrt(low / aspect)), tallest)
            tall = shortest + int(pick * (tallest - shortest + 1))
            # Rounding may have pushed the area over a bound: one row more, or one less, brings it back.
            tall += tall * round(tall * aspect) < low
            tall -= tall * round(tall * aspect) > high
            wide = round(tall * aspect)
            if 0 < tall <= height and 0 < wide <= width and low <= tall * wide <= high:
                return int(down * (height - tall)), int(right * (width - wide)), tall, wide
        return 0, 0, height, width


@dataclasses.dataclass(frozen=True)
class DecodeAndInceptionCrop(ImageOp):
    """`decode | inception_crop`, decoding no more than the crop needs. The pipeline puts it in their place.

    The box is the same. The pixels are the same too, unless the crop is at least twice the target size both ways: then
    a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which averages where the bilinear resize would skip pixels. The
    released code does not; `decode(reduce=False)` leaves it.
    """

    decode: Decode
    crop: InceptionCrop
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        data = example.get(self.key)
        if not isinstance(data, bytes):
            return self.crop(self.decode(example, rng), rng)
        top, left, height, width = self.crop.box(*decoding.size(data), rng)
        target = operation.pair(self.crop.size)
        factor = decoding.reduction((height, width), target) if self.decode.reduce else 1
        image = decoding.decode(
            data,
            channels=self.decode.channels,
            decoder=self.decode.decoder,
            reduce=factor,
            rows=top + height,
        )
        if factor > 1 and decoding.header(data) is not None:
            height, width, top, left = height // factor, width // factor, top // factor, left // factor
        crop = image[top : top + height, left : left + width]
        return {**example, self.key: resampling.resize(crop, *target, self.crop.method)}

    def batched(self, batch: Example, rngs: Generators) -> Example:
        return self.crop.batched(self.decode.batched(batch, rngs), rngs)


@dataclasses.dataclass(frozen=True)
class FlipLR(ImageOp):
    """Mirrored left to right, half the time."""

    random: ClassVar[bool] = True

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        return resampling.mirror(image) if rng.random() < 0.5 else image

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        mirrored = np.array([rng.random() < 0.5 for rng in rngs])
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


@dataclasses.dataclass(frozen=True)
class Pad(ImageOp):
    """So many pixels of one value on every side."""

    pixels: int
    fill: int = 0

    def __post_init__(self) -> None:
        operation.require(self.pixels >= 0, self, "pixels is not negative.")
        operation.require(0 <= self.fill <= 255, self, "fill lies in 0..255.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        side = (self.pixels, self.pixels)
        return np.pad(images, ((0, 0), side, side, (0, 0)), constant_values=self.fill)


def windows(images: PixelBatch, corners: np.ndarray, height: int, width: int) -> PixelBatch:
    """The window of each image whose top left corner is given."""
    if len(images) == 1:
        top, left = corners[0]
        return images[:, top : top + height, left : left + width]
    rows = corners[:, :1] + np.arange(height)
    columns = corners[:, 1:] + np.arange(width)
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _check_size(op: ImageOp, *sizes: int | None) -> None:
    operation.require(all(size is None or size > 0 for size in sizes), op, "sizes are positive.")


def _check_method(op: ImageOp, method: str) -> None:
    operation.require(method in resampling.METHODS, op, f"method is one of {', '.join(resampling.METHODS)}.")


def _check_fits(op: ImageOp, images: PixelBatch, height: int, width: int) -> None:
    have = images.shape[1:3]
    if have[0] < height or have[1] < width:
        raise types.InputError(f"{op} needs a larger image than {have[0]}x{have[1]}. Resize it first.")
