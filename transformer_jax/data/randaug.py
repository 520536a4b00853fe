"""RandAugment (Cubuk et al., 1909.13719) as big_vision runs it, quirks included, without TensorFlow.

Each layer applies one of sixteen operations, all equally likely. M is the magnitude, "either sign" a fair coin.

| operation | argument at magnitude M | what it does |
|---|---|---|
| AutoContrast | | each channel stretched to 0..255 |
| Equalize | | each channel's histogram made flat, as Pillow does it |
| Invert | | 255 - x |
| Rotate | 3 M degrees, either sign | about the centre, nearest pixel |
| Posterize | int(0.4 M) bits | the other bits set to zero |
| Solarize | threshold int(25.6 M) | what is not below it inverted |
| Color | 0.18 M + 0.1 | blended with its grey picture: 0 is grey, 1 the image, more exaggerates |
| Contrast | 0.18 M + 0.1 | blended with one grey value |
| Brightness | 0.18 M + 0.1 | blended with black |
| Sharpness | 0.18 M + 0.1 | blended with its smoothed picture; the border stays |
| ShearX, ShearY | 0.03 M, either sign | about the top left corner, nearest pixel |
| TranslateX, TranslateY | 10 M pixels, either sign | nearest pixel |
| Cutout | 4 M pixels | a square of twice that side, its centre anywhere in the image |
| SolarizeAdd | int(11 M) | added to what is below 128 |

| quirk | here and there |
|---|---|
| no Identity, but Invert, Cutout and SolarizeAdd | unlike the paper's fourteen |
| every layer acts | a probability in 0.2..0.8 is drawn there and never used |
| magnitudes are not random | and larger than 10, the nominal maximum, they go on growing |
| Contrast does not know the mean | its grey value is the number of pixels / 256, at most 255: 196 at 224 x 224 |
| the enhancing four are not symmetric | from M = 5 on they only exaggerate, at M = 5 they do nothing |
| Solarize's threshold is a byte | it wraps: M = 10 and 20 invert everything, M = 15 is a threshold of 128 |
| Posterize's shift is a byte of at most 7 | no bits are one bit; M = 20 changes nothing; from 22.5 on, one bit again |
| AutoContrast, Color and all blends cut fractions off | as a cast to uint8 does |
| what comes from outside is 128 | for the moves and Cutout alike |
| 40 and 100 pixels at M = 10, not shares of the image | whatever its size |
| moves turn about pixel indices | Shear about pixel (0, 0), Rotate about ((width - 1) / 2, (height - 1) / 2) |

The wrapping is what NumPy before version 2 made of the released code; with later ones it stops with an OverflowError.
Pixels equal the released code's to the bit, but for the grey of 170 of the 16.7 million colours, a level off in Color.
Sharpness adds as TensorFlow's own convolution does; its oneDNN one, on some machines, rounds a few sums the other way.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from transformer_jax import types
from transformer_jax.data import colour, operation, resampling, warping
from transformer_jax.data.operation import ImageOp, Pixels

FILL = 128
_LUMA = np.array([[2989] * 3, [5870] * 3, [1140] * 3], np.float32)
"""TensorFlow's weights of grey in 1/10000, once for each channel: their sum with pixels is exact in float32."""
_GREY = np.float32(255.5 / 255 / 10000)
_LIGHT, _HEAVY = np.float32(1) / np.float32(13), np.float32(5) / np.float32(13)


@dataclasses.dataclass(frozen=True)
class RandAug(ImageOp):
    """So many of sixteen operations in a row, all of one magnitude (1909.13719), as big_vision runs them."""

    layers: int = 2
    magnitude: float = 10
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        operation.require(self.layers >= 0, self, "layers is not negative.")
        operation.require(0 <= self.magnitude <= 30, self, "magnitude lies in 0..30.")

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        if image.shape[-1] not in (1, 3):
            raise types.InputError(f"{self} takes 1 or 3 channels, not {image.shape[-1]}. Decode to 3 first.")
        for _ in range(self.layers):
            pick, coin, down, right = rng.random(4).tolist()
            name = NAMES[int(pick * len(NAMES))]
            argument = AUGMENTATIONS[name].argument(self.magnitude)
            if AUGMENTATIONS[name].signed and coin < 0.5:
                argument = -argument
            if name == "Cutout":
                image = cutout(image, argument, (int(down * image.shape[0]), int(right * image.shape[1])))
            else:
                image = AUGMENTATIONS[name].function(np.ascontiguousarray(image), argument)
        return image


def autocontrast(image: Pixels, _: float = 0) -> Pixels:
    """The lowest value of each channel becomes 0, the highest 255."""
    columns = np.max(image, axis=0), np.min(image, axis=0)
    high, low = np.max(columns[0], axis=0).astype(np.float32), np.min(columns[1], axis=0).astype(np.float32)
    scale = np.float32(255) / np.maximum(high - low, 1)
    table = colour.cut(colour.LEVELS * scale[:, None] - (low * scale)[:, None])
    return colour.lookup(image, np.where((high > low)[:, None], table, colour.LEVELS.astype(np.uint8)))


def equalize(image: Pixels, _: float = 0) -> Pixels:
    """The histogram of each channel made flat."""
    return colour.lookup(image, np.stack([_flattening(counts) for counts in _histograms(image)]))


def _flattening(counts: np.ndarray) -> np.ndarray:
    step = int(counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if step == 0:
        return np.arange(256, dtype=np.uint8)
    table = (np.cumsum(counts) + step // 2) // step
    return np.clip(np.concatenate([[0], table[:-1]]), 0, 255).astype(np.uint8)


def invert(image: Pixels, _: float = 0) -> Pixels:
    """Every value taken from 255."""
    return ~image


def posterize(image: Pixels, bits: float) -> Pixels:
    """Only the highest bits kept."""
    shift = min((8 - int(bits)) % 256, 7)
    return image & np.uint8(256 - (1 << shift))


def solarize(image: Pixels, threshold: float) -> Pixels:
    """Inverted from the threshold on."""
    return colour.lookup(
        image, np.where(colour.LEVELS < int(threshold) % 256, colour.LEVELS, 255 - colour.LEVELS).astype(np.uint8)[None]
    )


def solarize_add(image: Pixels, addition: float) -> Pixels:
    """Brighter below 128."""
    brighter = np.clip(colour.LEVELS + int(addition), 0, 255)
    return colour.lookup(image, np.where(colour.LEVELS < 128, brighter, colour.LEVELS).astype(np.uint8)[None])


def color(image: Pixels, factor: float) -> Pixels:
    """Between its grey picture and itself, or beyond."""
    if image.shape[-1] == 1:
        return image
    out = np.empty_like(image)
    for top in range(0, len(image), colour.ROWS):
        part = image[top : top + colour.ROWS].astype(np.float32)
        grey = part @ _LUMA
        grey *= _GREY
        out[top : top + colour.ROWS] = colour.blend(np.floor(grey, out=grey), part, factor)
    return out


def contrast(image: Pixels, factor: float) -> Pixels:
    """Between one grey value, which the number of pixels fixes, and itself, or beyond."""
    grey = np.floor(np.float32(min(image.shape[0] * image.shape[1] / 256, 255.0)))
    return colour.lookup(image, colour.blend(np.full_like(colour.LEVELS, grey), colour.LEVELS, factor)[None])


def sharpness(image: Pixels, factor: float) -> Pixels:
    """Between its smoothed picture and itself, or beyond."""
    if min(image.shape[:2]) < 3:
        return image
    out = image.copy()
    for top in range(0, len(image) - 2, colour.ROWS):
        part = image[top : top + colour.ROWS + 2].astype(np.float32)
        light, heavy = part * _LIGHT, part[1:-1, 1:-1] * _HEAVY
        smooth = light[:-2, :-2] + light[:-2, 1:-1]
        # In the order of TensorFlow's convolution: some sums end just below a whole number, as they do there.
        for addend in (light[:-2, 2:], light[1:-1, :-2], heavy, light[1:-1, 2:]):
            smooth += addend
        for addend in (light[2:, :-2], light[2:, 1:-1], light[2:, 2:]):
            smooth += addend
        np.floor(smooth, out=smooth)
        out[top + 1 : top + colour.ROWS + 1][: len(smooth), 1:-1] = colour.blend(smooth, part[1:-1, 1:-1], factor)
    return out


def rotate(image: Pixels, degrees: float) -> Pixels:
    """Turned about the centre; positive angles are clockwise."""
    height, width = (np.float32(side - 1) for side in image.shape[:2])
    radians = np.float32(degrees) * np.float32(math.pi / 180)
    cosine, sine = np.float32(math.cos(radians)), np.float32(math.sin(radians))
    across = (width - (cosine * width - sine * height)) / np.float32(2)
    down = (height - (sine * width + cosine * height)) / np.float32(2)
    lines = np.array([[cosine, -sine, across], [sine, cosine, down]], np.float32)
    return warping.nearest(image, lines, FILL)


def shear_x(image: Pixels, level: float) -> Pixels:
    """Rows moved by `level` pixels more each."""
    return warping.nearest(image, np.array([[1, level, 0], [0, 1, 0]], np.float32), FILL)


def shear_y(image: Pixels, level: float) -> Pixels:
    """Columns moved by `level` pixels more each."""
    return warping.nearest(image, np.array([[1, 0, 0], [level, 1, 0]], np.float32), FILL)


def translate_x(image: Pixels, pixels: float) -> Pixels:
    """Moved to the left."""
    return warping.nearest(image, np.array([[1, 0, pixels], [0, 1, 0]], np.float32), FILL)


def translate_y(image: Pixels, pixels: float) -> Pixels:
    """Moved upwards."""
    return warping.nearest(image, np.array([[1, 0, 0], [0, 1, pixels]], np.float32), FILL)


def cutout(image: Pixels, pixels: float, centre: tuple[int, int]) -> Pixels:
    """A square from `centre - pixels` up to `centre + pixels`, cut off at the border."""
    (row, column), half = centre, int(pixels)
    out = image.copy()
    out[max(0, row - half) : row + half, max(0, column - half) : column + half] = FILL
    return out


def _histograms(image: Pixels) -> list[np.ndarray]:
    cv2 = resampling.opencv()
    channels = range(image.shape[-1])
    if cv2 is None:
        return [np.bincount(image[..., channel].ravel(), minlength=256) for channel in channels]
    return [cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64) for channel in channels]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """One of the sixteen: what it does, its argument at a magnitude, whether the argument takes either sign."""

    function: Callable[..., Pixels]
    argument: Callable[[float], float] = lambda magnitude: 0.0
    signed: bool = False


_enhanced = functools.partial(Augmentation, argument=lambda magnitude: magnitude / 10 * 1.8 + 0.1)
_moved = functools.partial(Augmentation, signed=True)
AUGMENTATIONS = {
    "AutoContrast": Augmentation(autocontrast),
    "Equalize": Augmentation(equalize),
    "Invert": Augmentation(invert),
    "Rotate": _moved(rotate, lambda magnitude: magnitude / 10 * 30),
    "Posterize": Augmentation(posterize, lambda magnitude: int(magnitude / 10 * 4)),
    "Solarize": Augmentation(solarize, lambda magnitude: int(magnitude / 10 * 256)),
    "Color": _enhanced(color),
    "Contrast": _enhanced(contrast),
    "Brightness": _enhanced(colour.brightness),
    "Sharpness": _enhanced(sharpness),
    "ShearX": _moved(shear_x, lambda magnitude: magnitude / 10 * 0.3),
    "ShearY": _moved(shear_y, lambda magnitude: magnitude / 10 * 0.3),
    "TranslateX": _moved(translate_x, lambda magnitude: magnitude / 10 * 100),
    "TranslateY": _moved(translate_y, lambda magnitude: magnitude / 10 * 100),
    "Cutout": Augmentation(cutout, lambda magnitude: int(magnitude / 10 * 40)),
    "SolarizeAdd": Augmentation(solarize_add, lambda magnitude: int(magnitude / 10 * 110)),
}
NAMES = tuple(AUGMENTATIONS)
