"""What the builders share: features, splits and PNG bytes of a source whose images lie in memory."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from transformer_jax.data import sources, views

_BLOCK = 512


def info(builder: tfds.core.DatasetBuilder, *, side: int, class_names: tuple[str, ...], **kwargs: Any):
    """Grey square images with a class. Examples keep the source's order, so index i is the same on disk."""
    return tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(side, side, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=class_names),
            }
        ),
        supervised_keys=("image", "label"),
        disable_shuffling=True,
        **kwargs,
    )


def examples(source: sources.Source) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(key, example) as TFDS wants them, the image as a PNG file object."""
    for start in range(0, len(source), _BLOCK):
        indices = range(start, min(start + _BLOCK, len(source)))
        for index, example in zip(indices, views.read(source, indices), strict=True):
            yield index, {"image": png(example["image"]), "label": example["label"]}


def png(image: UInt8[np.ndarray, "height width 1"]) -> io.BytesIO:
    """The image as a PNG file, rewound."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    file.seek(0)
    return file
