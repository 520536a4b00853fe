"""Ops on whole fields: the value range of pixels, one-hot labels, keeping, dropping and copying fields."""

import dataclasses

import numpy as np
from jaxtyping import Float32

from transformer_jax import types
from transformer_jax.data import operation
from transformer_jax.data.operation import Example, Generators, Op


@dataclasses.dataclass(frozen=True)
class ValueRange(Op):
    """uint8 pixels as float32 in `low .. high`. As the last op on the image it is the device's; pixels stay uint8."""

    low: float = -1.0
    high: float = 1.0
    key: str = dataclasses.field(default="image", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        operation.require(self.low < self.high, self, "low is less than high.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, self.key: scale(operation.pixels(example, self.key, self), self.low, self.high)}

    def batched(self, batch: Example, rngs: Generators) -> Example:
        return {**batch, self.key: scale(batch[self.key], self.low, self.high)}


@dataclasses.dataclass(frozen=True)
class OneHot(Op):
    """An integer label as a float32 row with a one."""

    classes: int
    key: str = dataclasses.field(default="label", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        operation.require(self.classes > 0, self, "classes is positive.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        label = np.asarray(_field(self, example, self.key))
        if label.min() < 0 or label.max() >= self.classes:
            raise types.InputError(f"{self} needs labels in 0..{self.classes - 1}, not {label.max()}.")
        return {**example, self.key: (label[..., None] == np.arange(self.classes)).astype(np.float32)}


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


def scale(image: np.ndarray, low: float, high: float) -> Float32[np.ndarray, "*shape"]:
    """`low + image / 255 * (high - low)` in float32."""
    return image.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def _field(op: Op, example: Example, name: str) -> object:
    if name not in example:
        raise types.InputError(f"{op} needs the field {name!r}. The example has: {', '.join(example)}.")
    return example[name]
