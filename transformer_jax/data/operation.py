"""What a preprocessing op is: a frozen dataclass of plain arguments that maps an example to an example.

An op draws random numbers only from the generator it is handed, and always the same ones for the same image size, so
an example's outcome never depends on its neighbours in a batch. `batched` is the same map for examples that
lie side by side in arrays; ops that tiny images go through write it without a Python loop.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from transformer_jax import types

Example = dict[str, Any]
Pixels = UInt8[np.ndarray, "_height _width _channels"]
PixelBatch = UInt8[np.ndarray, "batch _height _width _channels"]
Generators = Sequence[np.random.Generator]


@dataclasses.dataclass(frozen=True)
class Op:
    """One step of preprocessing."""

    random: ClassVar[bool] = False
    """Draws random numbers: what comes before the first such op is computed once for images in memory."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        raise NotImplementedError  # the base of the table: every op has its own

    def batched(self, batch: Example, rngs: Generators) -> Example:
        """The op on every example of a batch of arrays; here for ops that only rename or drop fields."""
        return self(batch, rngs[0])


@dataclasses.dataclass(frozen=True)
class ImageOp(Op):
    """An op that maps one image to one image."""

    key: str = dataclasses.field(default="image", kw_only=True, repr=False)

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """The image after this op."""
        return self.apply_batch(image[None], [rng])[0]

    def apply_batch(self, images: PixelBatch, rngs: Generators) -> PixelBatch:
        """`apply` for equally large images."""
        return np.stack([self.apply(image, rng) for image, rng in zip(images, rngs, strict=True)])

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, self.key: self.apply(pixels(example, self.key, self), rng)}

    def batched(self, batch: Example, rngs: Generators) -> Example:
        return {**batch, self.key: self.apply_batch(batch[self.key], rngs)}


def pixels(example: Example, key: str, op: Op) -> Pixels:
    """The decoded uint8 image of an example, or an error that says what is missing."""
    image = example.get(key)
    if image is None:
        raise types.InputError(f"{op} needs the field {key!r}. The example has: {', '.join(example)}.")
    if isinstance(image, bytes):
        raise types.InputError(f'{op} needs decoded pixels. Write "decode | ..." before it.')
    if image.dtype != np.uint8 or image.ndim != 3:
        raise types.InputError(
            f"{op} needs uint8 pixels [height, width, channels], not {image.dtype}{list(image.shape)}."
            " Put value_range last: pixels travel as uint8."
        )
    return image


def require(rule: bool, op: Op, message: str) -> None:
    """An `InputError` with the op as it was written unless the rule holds."""
    if not rule:
        raise types.InputError(f"{op}: {message}")


def pair(size: int | tuple[int, int], width: int | None = None) -> tuple[int, int]:
    """(height, width) of `224`, `(224, 192)` or `224, 192`."""
    if isinstance(size, tuple):
        return size
    return size, size if width is None else width
