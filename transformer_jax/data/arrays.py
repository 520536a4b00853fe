"""A source whose images lie in memory as one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from transformer_jax import types


class ArraySource:
    """Images and labels in memory: `UInt8[batch, height, width, channels]` and integers."""

    in_memory = True

    def __init__(
        self,
        images: UInt8[np.ndarray, "batch height width channels"],
        labels: Integer[np.ndarray, " batch"],
        *,
        name: str,
        split: str,
        class_names: Sequence[str],
        version: str = "1",
    ):
        if len(images) != len(labels):
            raise types.InputError(f"Every image has one label: {len(images)} images, {len(labels)} labels.")
        self.name = f"{name} {split}"
        self.class_names = tuple(class_names)
        self.num_classes = len(self.class_names)
        self.fingerprint = f"{name}:{split}:{len(images)}:{version}"
        self.images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self._labels[index]), "id": f"{self.name}[{index}]"}

    def labels(self) -> np.ndarray:
        return self._labels
