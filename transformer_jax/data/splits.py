"""The split language: `train`, `train[:800]+validation[:200]`, `train[10%:]`, `test[-100:]`. As TFDS, for every source.

A percentage is rounded to the closest example, as TFDS does. Parts joined by `+` follow each other in that order.
"""

import dataclasses
import re

from transformer_jax import types

_PART = re.compile(r"^\s*(?P<base>[\w./-]+)\s*(?:\[\s*(?P<start>[^:\]]*)(?P<colon>:)\s*(?P<stop>[^:\]]*)\])?\s*$")
_BOUND = re.compile(r"^(-?\d[\d_]*(?:\.\d+)?)\s*(%?)$")
_FORM = 'A split is written "train", "train[:800]", "train[10%:]", "train[-100:]" or such parts joined by "+".'


@dataclasses.dataclass(frozen=True)
class Bound:
    """Where a slice starts or stops: so many examples, or so many per cent; negative ones count from the end."""

    value: int | float
    percent: bool

    def position(self, length: int) -> int:
        at = round(self.value * length / 100) if self.percent else int(self.value)
        return int(at + length if self.value < 0 else at)


@dataclasses.dataclass(frozen=True)
class Part:
    """One slice of a base split."""

    base: str
    start: Bound | None
    stop: Bound | None

    def interval(self, length: int) -> range:
        """The indices of a base split of `length` examples that this part takes."""
        start = 0 if self.start is None else self.start.position(length)
        stop = length if self.stop is None else self.stop.position(length)
        if not (0 <= start <= length and 0 <= stop <= length):
            raise types.InputError(
                f"A slice lies within its split. {self.base!r} has {length} examples, asked for {start} to {stop}."
            )
        return range(start, max(start, stop))

    @property
    def whole(self) -> bool:
        return self.start is None and self.stop is None


def parse(split: str) -> tuple[Part, ...]:
    """The parts of a split."""
    return tuple(_part(text, split) for text in split.split("+"))


def bases(split: str) -> tuple[str, ...]:
    """The base splits a split is made of, each once, in order."""
    return tuple(dict.fromkeys(part.base for part in parse(split)))


def _part(text: str, split: str) -> Part:
    match = _PART.match(text)
    if match is None:
        raise types.InputError(f"{_FORM} Not: {split!r}.")
    return Part(match["base"], _bound(match["start"], split), _bound(match["stop"], split))


def _bound(text: str | None, split: str) -> Bound | None:
    if text is None or not text.strip():
        return None
    match = _BOUND.match(text.strip())
    if match is None or (not match[2] and "." in match[1]):
        raise types.InputError(f"{_FORM} Not: {split!r} (what is {text.strip()!r}?).")
    bound = Bound(float(match[1]) if match[2] else int(match[1]), bool(match[2]))
    if bound.percent and abs(bound.value) > 100:
        raise types.InputError(f"A split's percentages lie between -100 and 100. Not: {split!r}.")
    return bound
