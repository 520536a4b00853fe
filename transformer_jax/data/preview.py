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
        example = source[index]
        tiles.append(shown(example, steps, order.generator(seed, epoch, index), where=f"example {index}"))
        captions.append(caption(source, example["label"]))
    try:
        sheet(tiles, captions).save(path, "PNG")
    except OSError as error:
        raise types.InputError(f"A contact sheet is written to a file: {os.fspath(path)}: {error.strerror}.") from error


def shown(
    example: dict[str, Any], steps: Sequence[operation.Op], rng: np.random.Generator, *, where: str
) -> UInt8[np.ndarray, "height width 3"]:
    """The image of an example as the steps leave it, as RGB."""
    name, example = example.get("id", ""), dict(example)
    try:
        for step in steps:
            example = step(example, rng)
    except decoding.BadImage as error:
        raise types.InputError(f"Bad image, {where}, {name}: {error}. Mend or remove it.") from error
    return _pixels(example)


def caption(source: sources.Source, label: Any) -> str:
    """The name of the class, or of every class of a set."""
    names = [source.class_names[number] for number in np.atleast_1d(label).tolist()]
    return " ".join(names) or "(no label)"


def _pixels(example: dict[str, Any]) -> UInt8[np.ndarray, "height width 3"]:
    """The image of a processed example as RGB, whatever its channels and range."""
    image = example.get("image")
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] not in (1, 3):
        found = type(image).__name__ if not isinstance(image, np.ndarray) else f"an array of shape {image.shape}"
        raise types.InputError(
            f"A preview needs a decoded image of 1 or 3 channels, not {found}."
            ' Begin with "decode" and keep the field "image".'
        )
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-6))).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def sheet(tiles: Sequence[np.ndarray], captions: Sequence[str]) -> Any:
    """The images in rows, each above its caption of a line or more, as one image of Pillow's."""
    from PIL import Image, ImageDraw

    largest = max(max(tile.shape[:2]) for tile in tiles)
    zoom = max(1, _TILE // largest)
    side = largest * zoom
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    lines = max(text.count("\n") + 1 for text in captions)
    width, height = side + _GAP, side + _GAP + _CAPTION * lines
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(page)
    for number, (tile, text) in enumerate(zip(tiles, captions, strict=True)):
        left, top = number % columns * width + _GAP, number // columns * height + _GAP
        image = Image.fromarray(np.ascontiguousarray(tile))
        page.paste(image.resize((tile.shape[1] * zoom, tile.shape[0] * zoom), Image.Resampling.NEAREST), (left, top))
        for line, words in enumerate(text.split("\n")):
            pen.text((left, top + side + line * _CAPTION), _fitted(words, side, pen), fill="black")
    return page


def _fitted(caption: str, width: int, pen: Any) -> str:
    while len(caption) > 1 and pen.textlength(caption) > width:
        caption = caption[:-1]
    return caption
