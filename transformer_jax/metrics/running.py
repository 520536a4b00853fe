"""Means over a data set: sums and counts are merged first and divided last, exactly.

The sum of floating-point numbers is kept as an expansion without rounding error, so the mean of a set of numbers is the
same in whatever order, batches and parts they come.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class Mean:
    """The mean of all numbers added, rounded once. NaN for none, and as soon as one is not finite."""

    def __init__(self) -> None:
        self.count = 0
        self._finite = True
        self._parts: list[float] = []

    def add(self, values: Any, *, mask: Any = None) -> None:
        """The numbers of an array, one example each, but for those the mask drops."""
        numbers = np.asarray(values, np.float64).reshape(-1)
        if mask is not None:
            numbers = numbers[np.asarray(mask, bool).reshape(-1)]
        self._take(numbers, len(numbers))

    def add_total(self, total: Any, count: Any) -> None:
        """A sum that was made elsewhere, and of how many numbers."""
        self._take([float(total)], int(count))

    def merge(self, other: "Mean") -> None:
        """What another one has seen."""
        self._take(other._parts, other.count)
        self._finite &= other._finite

    def _take(self, numbers: Iterable[float], count: int) -> None:
        numbers = list(numbers)
        self.count += count
        self._finite = self._finite and all(map(math.isfinite, numbers))
        if self._finite:
            self._parts = _expansion([*self._parts, *numbers])

    @property
    def total(self) -> float:
        """The sum, rounded once."""
        return math.fsum(self._parts) if self._finite else math.nan

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


class Means:
    """Means by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Mean] = {}

    def add(self, values: Mapping[str, Any], *, mask: Any = None) -> None:
        """One array of per-example numbers by name; the mask is the same for all of them."""
        for name, numbers in values.items():
            self.by_name.setdefault(name, Mean()).add(numbers, mask=mask)

    def merge(self, other: "Means") -> None:
        for name, mean in other.by_name.items():
            self.by_name.setdefault(name, Mean()).merge(mean)

    def values(self) -> dict[str, float]:
        return {name: mean.value for name, mean in self.by_name.items()}


def _expansion(numbers: list[float]) -> list[float]:
    """Few numbers with exactly the same sum: the rounded sum, what that leaves, and so on until nothing is left."""
    parts: list[float] = []
    while part := math.fsum([*numbers, *(-p for p in parts)]):
        parts.append(part)
    return parts
