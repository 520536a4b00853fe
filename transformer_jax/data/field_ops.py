"""Ops on whole fields: the range of pixels, labels as rows, keeping, dropping and copying fields."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32

from transformer_jax import types
from transformer_jax.data import operation
from transformer_jax.data.operation import Example, Generators, Op

Edge = float | tuple[float, ...]
"""Where the level 0, or 255, goes: one number, or one a channel."""
PixelRange = tuple[Edge, Edge]


@dataclasses.dataclass(frozen=True)
class _Scaling(Op):
    """uint8 pixels as float32. As the last op on the image it is the device's to do; pixels stay uint8 until then."""

    key: str = dataclasses.field(default="image", kw_only=True, repr=False)

    @property
    def pixel_range(self) -> PixelRange:
        """What the levels 0 and 255 become."""
        raise NotImplementedError  # the two below

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, self.key: self._scaled(operation.pixels(example, self.key, self))}

    def batched(self, batch: Example, rngs: Generators) -> Example:
        return {**batch, self.key: self._scaled(batch[self.key])}

    def _scaled(self, image: np.ndarray) -> Float32[np.ndarray, "*shape"]:
        require_channels(self.pixel_range, image.shape[-1])
        return scale(image, *self.pixel_range)


@dataclasses.dataclass(frozen=True)
class ValueRange(_Scaling):
    """uint8 pixels as float32 in `low .. high`. As the last op on the image it is the device's; pixels stay uint8."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        operation.require(self.low < self.high, self, "low is less than high.")

    @property
    def pixel_range(self) -> PixelRange:
        return float(self.low), float(self.high)


@dataclasses.dataclass(frozen=True)
class Normalize(_Scaling):
    """Pixels in 0..1, less the mean, over the standard deviation; one number a channel, or one for all.

    `normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))` is what torchvision's and most of timm's models were
    trained with on ImageNet. As the last op on the image it is the device's; pixels stay uint8.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        operation.require(len(self.mean) == len(self.std) > 0, self, "mean and std have as many numbers.")
        operation.require(min(self.std) > 0, self, "std is positive.")

    @property
    def pixel_range(self) -> PixelRange:
        pairs = list(zip(self.mean, self.std, strict=True))
        low, high = tuple((0 - mean) / std for mean, std in pairs), tuple((1 - mean) / std for mean, std in pairs)
        return (low, high) if len(pairs) > 1 else (low[0], high[0])


@dataclasses.dataclass(frozen=True)
class OneHot(Op):
    """An integer label as a float32 row with a one."""

    classes: int
    key: str = dataclasses.field(default="label", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        operation.require(self.classes > 0, self, "classes is positive.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        label = np.asarray(_field(self, example, self.key))
        wrong = label[(label < 0) | (label >= self.classes)]
        if len(wrong):
            raise types.InputError(f"{self} needs labels in 0..{self.classes - 1}, not {wrong[0]}.")
        return {**example, self.key: (label[..., None] == np.arange(self.classes)).astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class MultiHot(Op):
    """A set of integer labels, or a single one, as a float32 row with a one for each; all zeros for the empty set."""

    classes: int
    key: str = dataclasses.field(default="label", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        operation.require(self.classes > 0, self, "classes is positive.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, self.key: self._row(_field(self, example, self.key))}

    def batched(self, batch: Example, rngs: Generators) -> Example:
        return {**batch, self.key: np.stack([self._row(labels) for labels in batch[self.key]])}

    def _row(self, labels: Any) -> Float32[np.ndarray, " classes"]:
        row = np.zeros(self.classes, np.float32)
        for label in np.atleast_1d(labels).tolist():
            if not 0 <= label < self.classes:
                raise types.InputError(f"{self} needs labels in 0..{self.classes - 1}, not {label}.")
            row[label] = 1
        return row


class _Fields(Op):
    """An op on the names of fields, written `keep("image", "label")`."""

    names: tuple[str, ...]

    def __init__(self, *names: str):
        object.__setattr__(self, "names", names)
        operation.require(len(names) > 0, self, "name at least one field.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.names))})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Fields) and other.names == self.names

    def __hash__(self) -> int:
        return hash((type(self), self.names))

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), self.names


class Keep(_Fields):
    """Only these fields."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {name: _field(self, example, name) for name in self.names}


class Drop(_Fields):
    """All but these fields."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for name in self.names:
            _field(self, example, name)
        return {name: value for name, value in example.items() if name not in self.names}


@dataclasses.dataclass(frozen=True)
class Copy(Op):
    """The field `source` again under the name `target`."""

    source: str
    target: str

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, self.target: _field(self, example, self.source)}


def scale(image: np.ndarray, low: Edge, high: Edge) -> Float32[np.ndarray, "*shape"]:
    """`low + image / 255 * (high - low)` in float32; the last axis of the image is the channels."""
    start, stop = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return image.astype(np.float32) * np.float32((stop - start) / 255) + np.float32(start)


def require_channels(pixel_range: PixelRange | None, channels: int) -> None:
    """`InputError` unless the range is one for all channels, or has as many numbers as there are channels."""
    if pixel_range is not None and isinstance(pixel_range[0], tuple) and len(pixel_range[0]) != channels:
        raise types.InputError(
            f"normalize takes one mean and one std a channel: {len(pixel_range[0])} are given, the image has {channels}"
            f" channel{'s' * (channels != 1)}. Change them, or the channels of decode."
        )


def _field(op: Op, example: Example, name: str) -> object:
    if name not in example:
        raise types.InputError(f"{op} needs the field {name!r}. The example has: {', '.join(example)}.")
    return example[name]
