"""What a model will see: a contact sheet of a source after its preprocessing."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from transformer_jax import types
from transformer_jax.data import decoding, operation, ops, order, sources

_TILE = 96
"""Small images are enlarged to about this many pixels, without smoothing."""
_GAP, _CAPTION = 4, 14


def contact_sheet(
    source: sources.Source,
    preprocess: str | Sequence[operation.Op],
    path: str | os.PathLike[str],
    *,
    count: int = 64,
    seed: int = 0,
) -> None:
    """Writes a PNG of the first `count` examples of the shuffled order, each above its class names.

    They are the examples, and the crops and flips, that training with this seed meets first.
    """
    if count < 1:
        raise types.InputError(f"A contact sheet shows at least 1 image. Asked: {count}.")
    steps = ops.parse(preprocess)
    tiles, captions = [], []
    positions = np.arange(min(count, len(source)))
    for epoch, index in order.Order(len(source), seed=seed)(positions):
        rng = order.generator(seed, epoch, index)
        example: dict[str, Any] = dict(source[index])
        text, name = caption(source, example["label"]), example.get("id", "")
        try:
            for step in steps:
                example = step(example, rng)
        except decoding.BadImage as error:
            raise types.InputError(f"Bad image, example {index}, {name}: {error}. Mend or remove it.") from error
        tiles.append(_pixels(example, preprocess))
        captions.append(text)
    try:
        _sheet(tiles, captions).save(path, "PNG")
    except OSError as error:
        raise types.InputError(f"A contact sheet is written to a file: {os.fspath(path)}: {error.strerror}.") from error


def caption(source: sources.Source, label: Any) -> str:
    """The name of the class, or of every class of a set."""
    names = [source.class_names[number] for number in np.atleast_1d(label).tolist()]
    return " ".join(names) or "(no label)"


def _pixels(example: dict[str, Any], preprocess: Any) -> UInt8[np.ndarray, "height width 3"]:
    """The image of a processed example as RGB, whatever its channels and range."""
    image = example.get("image")
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] not in (1, 3):
        found = type(image).__name__ if not isinstance(image, np.ndarray) else f"an array of shape {image.shape}"
        raise types.InputError(
            f"A preview needs a decoded image of 1 or 3 channels after {preprocess!r}, not {found}."
            ' Begin with "decode" and keep the field "image".'
        )
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-6))).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _sheet(tiles: Sequence[np.ndarray], captions: Sequence[str]) -> Any:
    from PIL import Image, ImageDraw

    largest = max(max(tile.shape[:2]) for tile in tiles)
    zoom = max(1, _TILE // largest)
    side = largest * zoom
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    width, height = side + _GAP, side + _GAP + _CAPTION
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = number % columns * width + _GAP, number // columns * height + _GAP
        image = Image.fromarray(np.ascontiguousarray(tile))
        sheet.paste(image.resize((tile.shape[1] * zoom, tile.shape[0] * zoom), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + side), _fitted(caption, side, pen), fill="black")
    return sheet


def _fitted(caption: str, width: int, pen: Any) -> str:
    while len(caption) > 1 and pen.textlength(caption) > width:
        caption = caption[:-1]
    return caption
