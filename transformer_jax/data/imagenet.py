"""The classes of ImageNet-1k in their usual order: that of TFDS, of Google's weights, of timm's and Hugging Face's."""

import functools
from collections.abc import Sequence
from importlib import resources

CLASSES = 1000


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet id of each class, `n01440764` first, as the installed TFDS lists them; no data set is opened."""
    labels = resources.files("tensorflow_datasets").joinpath("datasets", "imagenet2012", "labels.txt")
    return tuple(labels.read_text(encoding="utf-8").split())


def numbered(names: Sequence[str]) -> bool:
    """Whether 1,000 names are only the numbers of their classes, as where a data set stores bare labels (ReaL)."""
    return len(names) == CLASSES and all(name == str(i) for i, name in enumerate(names))
