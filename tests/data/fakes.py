"""Sources and files for the tests of this folder."""

import io

import numpy as np
from PIL import Image

from transformer_jax.data import arrays


def source(length=10, size=8, classes=5, name="fake", split="train"):
    """Image i is filled with i; its label is i modulo the classes."""
    images = np.broadcast_to(np.arange(length, dtype=np.uint8)[:, None, None, None], (length, size, size, 1)).copy()
    return arrays.ArraySource(
        images, np.arange(length) % classes, name=name, split=split, class_names=[f"c{i}" for i in range(classes)]
    )


def picture(height=37, width=53, channels=3, seed=0):
    """A smooth random picture, so that JPEG has something to do and resizing does not alias."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), np.uint8)
    bands = [Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
    return np.stack([np.asarray(band) for band in bands], -1)


def encoded(array, kind="JPEG", **options):
    """The bytes of an image file."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[-1]]
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if mode == "L" else array, mode).save(buffer, kind, **options)
    return buffer.getvalue()
