"""Random changes for tiny images, written for whole batches."""

import dataclasses
from typing import ClassVar

import numpy as np

from transformer_jax.data import image_ops, operation, warping
from transformer_jax.data.operation import Generators, ImageOp, PixelBatch


@dataclasses.dataclass(frozen=True)
class Shift(ImageOp):
    """Moved by up to so many whole pixels each way, every move equally likely."""

    pixels: int
    fill: int = 0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        operation.require(self.pixels >= 0, self, "pixels is not negative.")
        operation.require(0 <= self.fill <= 255, self, "fill lies in 0..255.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        side = (self.pixels, self.pixels)
        padded = np.pad(images, ((0, 0), side, side, (0, 0)), constant_values=self.fill)
        corners = np.array([(rng.random(2) * (2 * self.pixels + 1)).astype(int) for rng in rngs])
        return image_ops.windows(padded, corners, images.shape[1], images.shape[2])


@dataclasses.dataclass(frozen=True)
class RandomAffine(ImageOp):
    """Turned, moved, scaled and sheared about the centre, each drawn uniformly; bilinear.

    `translate` and `scale` are fractions of the image, `degrees` and `shear` angles: `scale=0.1` means 0.9 to 1.1.
    """

    degrees: float = 10.0
    translate: float = 0.1
    scale: float = 0.1
    shear: float = 0.0
    fill: int = 0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        operation.require(0 <= self.degrees <= 180, self, "degrees lies in 0..180.")
        operation.require(0 <= self.translate <= 1 and 0 <= self.scale < 1, self, "translate and scale lie in 0..1.")
        operation.require(0 <= self.shear < 90, self, "shear lies in 0..90 degrees.")
        operation.require(0 <= self.fill <= 255, self, "fill lies in 0..255.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        draws = 2 * np.array([rng.random(5) for rng in rngs]) - 1
        angle, shear = np.deg2rad(self.degrees * draws[:, 0]), np.tan(np.deg2rad(self.shear * draws[:, 1]))
        zoom = 1 / (1 + self.scale * draws[:, 2])
        cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
        inverse = np.empty((len(images), 2, 3))
        inverse[:, 0, 0], inverse[:, 0, 1] = cosine, cosine * shear - sine
        inverse[:, 1, 0], inverse[:, 1, 1] = sine, sine * shear + cosine
        inverse[:, 0, 2] = self.translate * images.shape[2] * draws[:, 3]
        inverse[:, 1, 2] = self.translate * images.shape[1] * draws[:, 4]
        return warping.warp(images, inverse, self.fill)


@dataclasses.dataclass(frozen=True)
class Jitter(ImageOp):
    """Brightness and contrast changed by up to these fractions, each drawn uniformly."""

    brightness: float = 0.2
    contrast: float = 0.2
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        inside = 0 <= self.brightness <= 1 and 0 <= self.contrast <= 1
        operation.require(inside, self, "brightness and contrast lie in 0..1.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        draws = (2 * np.array([rng.random(2) for rng in rngs]) - 1).astype(np.float32)
        gain = (1 + self.contrast * draws[:, 0])[:, None, None, None]
        offset = (255 * self.brightness * draws[:, 1])[:, None, None, None] + np.float32(127.5) * (1 - gain)
        return np.clip(images * gain + (offset + np.float32(0.5)), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Cutout(ImageOp):
    """A square of this size, its centre anywhere in the image, filled with one value (DeVries and Taylor 2017)."""

    size: int
    fill: int = 0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        operation.require(self.size > 0, self, "size is positive.")
        operation.require(0 <= self.fill <= 255, self, "fill lies in 0..255.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        height, width = images.shape[1:3]
        centres = np.array([(rng.random(2) * (height, width)).astype(int) for rng in rngs])
        rows = np.arange(height) - centres[:, :1] + self.size // 2
        columns = np.arange(width) - centres[:, 1:] + self.size // 2
        inside = ((rows >= 0) & (rows < self.size))[:, :, None] & ((columns >= 0) & (columns < self.size))[:, None, :]
        return np.where(inside[..., None], np.uint8(self.fill), images)
