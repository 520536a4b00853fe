"""Sources made of other sources: slices joined by `+`, and balanced subsets for few-label experiments."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transformer_jax import types
from transformer_jax.data import order, splits

if TYPE_CHECKING:
    from transformer_jax.data import sources


def select(whole: Mapping[str, "sources.Source"], split: str, *, name: str) -> "sources.Source":
    """The split of base splits that are already open."""
    parts = splits.parse(split)
    if len(parts) == 1 and parts[0].whole:
        return whole[parts[0].base]
    return Joined([(whole[part.base], part.interval(len(whole[part.base]))) for part in parts], name=name)


def balanced(source: "sources.Source", count: int, *, seed: int = 0) -> "sources.Source":
    """`count` examples, as many of each class as possible, in an order in which every prefix is balanced.

    So a smaller subset is the beginning of a larger one. The choice depends on the labels and the seed only.
    """
    if not 1 <= count <= len(source):
        raise types.InputError(
            f"labels must lie between 1 and the number of examples. {source.name!r} has {len(source)}, asked: {count}."
        )
    seen: dict[int, list[tuple[int, int]]] = {}
    for index, label in enumerate(labels(source).tolist()):
        seen.setdefault(label, []).append((order.mix(seed, label, index), index))
    ranked = [
        (rank, order.mix(seed, rank, label), index)
        for label, members in seen.items()
        for rank, (_, index) in enumerate(sorted(members))
    ]
    chosen = [index for _, _, index in sorted(ranked)[:count]]
    return Subset(source, chosen, name=f"{source.name}, {count} labels", tag=f"labels={count}:{seed}")


class Joined:
    """Slices of sources, one after the other."""

    def __init__(self, parts: Sequence[tuple["sources.Source", range]], *, name: str):
        first = parts[0][0]
        self.name = name
        self.num_classes = first.num_classes
        self.class_names = first.class_names
        self.multilabel = any(multilabel(source) for source, _ in parts)
        self.in_memory = all(source.in_memory for source, _ in parts)
        self.fingerprint = "+".join(f"{source.fingerprint}[{at.start}:{at.stop}]" for source, at in parts)
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(at) for _, at in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} holds {len(self)} examples; asked for number {index}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        at = self._parts[part][1]
        return part, at[index - int(self._ends[part]) + len(at)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, at = self._find(index)
        return self._parts[part][0][at]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        found = [self._find(index) for index in indices]
        examples: list[Any] = [None] * len(found)
        for number, (source, _) in enumerate(self._parts):
            mine = [i for i, (part, _) in enumerate(found) if part == number]
            for i, example in zip(mine, read(source, [found[i][1] for i in mine]), strict=True):
                examples[i] = example
        return examples

    def labels(self) -> np.ndarray:
        return np.concatenate([labels(source)[at.start : at.stop] for source, at in self._parts])


class Subset:
    """Chosen examples of a source, in the order given."""

    def __init__(self, source: "sources.Source", indices: Sequence[int], *, name: str, tag: str):
        self.name = name
        self.num_classes = source.num_classes
        self.class_names = source.class_names
        self.multilabel = multilabel(source)
        self.in_memory = source.in_memory
        self.fingerprint = f"{source.fingerprint}({tag})"
        self._source = source
        self._indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._indices[index])]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return read(self._source, [int(self._indices[index]) for index in indices])

    def labels(self) -> np.ndarray:
        return labels(self._source)[self._indices]


def multilabel(source: "sources.Source") -> bool:
    """Whether an example has a set of labels, which may be empty."""
    return bool(getattr(source, "multilabel", False))


def require_single(source: "sources.Source") -> None:
    """`InputError` unless every example has one label."""
    if multilabel(source):
        raise types.InputError(
            f"Every example must have one label here, those of {source.name!r} have a set of them. Leave `labels`"
            " (balanced subsets) out, or name a source, or a label_key, with one label an example."
        )


def read(source: "sources.Source", indices: Sequence[int]) -> list[dict[str, Any]]:
    """Many examples, at once where the source can."""
    many = getattr(source, "__getitems__", None)
    return [source[index] for index in indices] if many is None else list(many(indices))


def labels(source: "sources.Source") -> np.ndarray:
    """The label of every example, in order, without decoding an image where the source knows how."""
    require_single(source)
    known = getattr(source, "labels", None)
    return np.asarray(known() if known else [source[i]["label"] for i in range(len(source))])
