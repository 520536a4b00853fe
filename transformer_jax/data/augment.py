"""Random changes written for whole batches: moves and jitter of tiny images, and parts of an image taken away."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from transformer_jax.data import image_ops, operation, warping
from transformer_jax.data.operation import Generators, ImageOp, PixelBatch

_FILLS = ("noise", "mean", "constant")
_ATTEMPTS = 10


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


@dataclasses.dataclass(frozen=True)
class Erase(ImageOp):
    """A random rectangle filled, with this probability: random erasing (Zhong et al., 1708.04896), as timm draws it.

    Its area is uniform in `area_min .. area_max` per cent of the image, the logarithm of height / width in
    `aspect_min .. 1 / aspect_min`; the image stays as it was after 10 misses. `mode`: "noise", every value uniform
    in 0..255; "mean", the image's mean colour; "constant", `fill`.
    """

    probability: float = 0.5
    area_min: float = 2
    area_max: float = 100 / 3
    aspect_min: float = 0.3
    mode: str = "noise"
    fill: int = 0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        operation.require(0 <= self.probability <= 1, self, "probability lies in 0..1.")
        inside = 0 < self.area_min <= self.area_max <= 100 and self.area_max >= 1
        operation.require(inside, self, "0 < area_min <= area_max <= 100: per cent, not shares.")
        operation.require(0 < self.aspect_min <= 1, self, "aspect_min lies in 0..1.")
        operation.require(self.mode in _FILLS, self, f"mode is one of {', '.join(_FILLS)}.")
        operation.require(0 <= self.fill <= 255, self, "fill lies in 0..255.")

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        out = images.copy()
        for image, rng in zip(out, rngs, strict=True):
            top, left, height, width = self.box(*image.shape[:2], rng)
            if height:
                image[top : top + height, left : left + width] = self._filling(image, height, width, rng)
        return out

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of what is erased in an image of this size; empty where nothing is."""
        if rng.random() >= self.probability:
            return 0, 0, 0, 0
        steepest = math.log(self.aspect_min)
        for _ in range(_ATTEMPTS):
            draw, lean, down, right = rng.random(4).tolist()
            area = height * width * (self.area_min + draw * (self.area_max - self.area_min)) / 100
            aspect = math.exp(steepest * (1 - 2 * lean))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < tall < height and 0 < wide < width:
                return int(down * (height - tall + 1)), int(right * (width - wide + 1)), tall, wide
        return 0, 0, 0, 0

    def _filling(self, image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        if self.mode == "noise":
            return rng.integers(0, 256, (height, width, image.shape[-1]), np.uint8)
        if self.mode == "mean":
            return np.rint(np.mean(image, (0, 1))).astype(np.uint8)
        return np.array(self.fill, np.uint8)
