"""Changes of brightness, contrast and colour, and the arithmetic that they and RandAugment share."""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from transformer_jax.data import operation, resampling
from transformer_jax.data.operation import ImageOp, Pixels

LEVELS = np.arange(256, dtype=np.float32)
ROWS = 24
"""Rows worked on at a time where float32 is needed: temporaries that stay in the cache."""
LUMA = np.array([19595, 38470, 7471], np.float32)
"""ITU-R 601 weights in 1/65536, those of Pillow: their sum with pixels is exact in float32."""
_LUMAS = np.repeat(LUMA[:, None], 3, 1)
_HALF = np.float32(1 << 15)
_ORDERS = tuple(itertools.permutations(range(4)))


@dataclasses.dataclass(frozen=True)
class ColourJitter(ImageOp):
    """Brightness, contrast, saturation and hue changed in random order: torchvision's ColorJitter, to the bit.

    The first three are multiplied by a factor uniform in `1 - strength .. 1 + strength` (not below 0), hue is turned by
    up to this share of the circle each way. The defaults are those timm trains with. Pixels are those torchvision makes
    of Pillow images; grey images have no saturation and no hue.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        strengths = (self.brightness, self.contrast, self.saturation)
        operation.require(min(strengths) >= 0, self, "brightness, contrast and saturation are not negative.")
        operation.require(0 <= self.hue <= 0.5, self, "hue lies in 0..0.5.")

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        pick, *draws = rng.random(5).tolist()
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        image = np.ascontiguousarray(image)
        for number in _ORDERS[int(pick * len(_ORDERS))]:
            strength, draw = strengths[number], draws[number]
            if strength and number == 3:
                image = turn_hue(image, (2 * draw - 1) * strength)
            elif strength:
                low, high = max(0.0, 1 - strength), 1 + strength
                image = (brightness, contrast, saturation)[number](image, low + draw * (high - low))
        return image


def brightness(image: Pixels, factor: float) -> Pixels:
    """Between black and itself, or beyond."""
    return lookup(image, blend(np.zeros_like(LEVELS), LEVELS, factor)[None])


def contrast(image: Pixels, factor: float) -> Pixels:
    """Between its mean grey and itself, or beyond."""
    mean = np.float32(int(np.mean(grey(image)) + 0.5))
    return lookup(image, blend(np.full_like(LEVELS, mean), LEVELS, factor)[None])


def saturation(image: Pixels, factor: float) -> Pixels:
    """Between its grey picture and itself, or beyond."""
    if image.shape[-1] != 3:
        return image
    out = np.empty_like(image)
    for top in range(0, len(image), ROWS):
        part = image[top : top + ROWS].astype(np.float32)
        base = part @ _LUMAS
        base += _HALF
        base *= 1 / 65536
        out[top : top + ROWS] = blend(np.floor(base, out=base), part, factor)
    return out


def turn_hue(image: Pixels, share: float) -> Pixels:
    """Hue turned by this share of the circle, in steps of 1/256 of Pillow's HSV."""
    if image.shape[-1] != 3:
        return image
    from PIL import Image

    hue, *rest = Image.fromarray(image).convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(int(share * 255) % 256))
    return np.array(Image.merge("HSV", (turned, *rest)).convert("RGB"))


def grey(image: UInt8[np.ndarray, "... _channels"]) -> UInt8[np.ndarray, "... 1"]:
    """The grey picture of three channels, Pillow's; of one, itself."""
    if image.shape[-1] == 1:
        return image
    total = image[..., :3].astype(np.float32) @ LUMA
    total += _HALF
    total *= 1 / 65536
    return total.astype(np.uint8)[..., None]


def blend(base: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """`base + factor * (image - base)` in float32, clipped, fractions cut off: uint8."""
    out = np.subtract(image, base, dtype=np.float32)
    out *= np.float32(factor)
    out += base
    return cut(out)


def cut(values: np.ndarray) -> np.ndarray:
    """float32 as uint8: clipped in place, fractions cut off."""
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def lookup(image: Pixels, table: np.ndarray) -> Pixels:
    """Every value replaced by its entry in the table of its channel, or in the only one: uint8[channels or 1, 256]."""
    cv2 = resampling.opencv()
    if len(table) == 1:
        return table[0].take(image) if cv2 is None else cv2.LUT(image, table[0]).reshape(image.shape)
    if cv2 is not None:
        return cv2.LUT(image, np.ascontiguousarray(table.T)[None]).reshape(image.shape)
    return np.stack([one.take(image[..., channel]) for channel, one in enumerate(table)], -1)
