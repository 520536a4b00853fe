"""Encoded images to pixels. Pillow is the reference; simplejpeg and OpenCV (`[images]` extra) give the same, sooner.

Every file ends upright (EXIF orientation) as uint8[height, width, channels] with the channels asked for: alpha is
dropped, palettes are looked up, CMYK is converted, 16-bit grey is scaled to 8. Two savings exist: `rows` stops after
the rows a crop needs (the pixels kept are those of the full decode; OpenCV reads them all), and `reduce` decodes at
1/2, 1/4 or 1/8 of the size inside the JPEG transform (each pixel is about the mean of those it replaces).

A JPEG's pixels are those of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`, to the bit. TensorFlow's default, which
the released code of the ViT papers uses, is INTEGER_FAST: on the two photographs of the tests it is .8 levels of 255
darker in the mean, and no number is more than 6 levels away.
"""

import functools
import io
import types as python_types
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

from transformer_jax import types
from transformer_jax.data import resampling

if TYPE_CHECKING:
    from PIL import Image

Pixels = UInt8[np.ndarray, "_height _width _channels"]
DECODERS = ("auto", "simplejpeg", "opencv", "pillow")
"""`auto` is the first of the others that is installed."""
REDUCTIONS = (8, 4, 2)
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)
_TAIL = 512
"""An end-of-image marker this far from the end still counts: cameras append a little."""


class BadImage(ValueError):
    """These bytes are no image, or a damaged one."""


class Header(NamedTuple):
    """What the first bytes of a whole grey or colour JPEG say. Sizes are as stored, before EXIF orientation."""

    height: int
    width: int
    components: int
    orientation: int
    height_at: int
    """Where the frame header stores the height; 0 when the rows cannot be cut (progressive, several scans)."""
    row_unit: int
    """Rows of one block row."""


def decode(
    data: bytes, *, channels: int = 3, reduce: int = 1, rows: int | None = None, decoder: str = "auto"
) -> Pixels:
    """The pixels of an encoded image, or `BadImage`. `reduce` and `rows` apply where `header` knows the file."""
    known = header(data)
    if known is None:
        return _decode_pillow(data, channels)
    reduce = reduce if min(known.height, known.width) >= reduce else 1
    fast = _fast(decoder) if channels == (1 if known.components == 1 else 3) else None
    # OpenCV says on standard error what is left over behind the last row it was told of.
    cut = rows is not None and reduce == 1 and known.height_at > 0 and known.orientation == 1
    body = _cut(data, known, rows) if cut and rows is not None and fast is not _decode_opencv else data
    pixels = None if fast is None else fast(body, known, channels, reduce)
    if pixels is None:
        return _decode_pillow(body, channels, reduce=reduce, known=known)
    return _upright(pixels, known.orientation)


def size(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright image, from the first bytes only."""
    known = header(data)
    if known is not None:
        return (known.width, known.height) if known.orientation > 4 else (known.height, known.width)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(0x0112, 1) > 4 else (height, width)
    except Exception as error:
        raise BadImage(_reason(error)) from error


def reduction(crop: tuple[int, int], target: tuple[int, int]) -> int:
    """The largest reduction that leaves a crop at least as large as the size it will be resized to."""
    return next((r for r in REDUCTIONS if crop[0] // r >= target[0] and crop[1] // r >= target[1]), 1)


def header(data: bytes) -> Header | None:
    """The header of a grey or colour JPEG that has its end marker; None for all else, which is Pillow's to judge."""
    if data[:2] != b"\xff\xd8" or data.rfind(b"\xff\xd9", max(0, len(data) - _TAIL)) < 0:
        return None
    at, orientation, frame, marker = 2, 1, 0, 0
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _FRAME_MARKERS:
            frame, marker = at + 4, kind
        elif kind == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + length])
        elif kind == 0xDA:
            return _frame(data, frame, marker, orientation, scan_components=data[at + 4]) if frame else None
        at += 2 + length
    return None


def _frame(data: bytes, at: int, marker: int, orientation: int, *, scan_components: int) -> Header | None:
    height = int.from_bytes(data[at + 1 : at + 3], "big")
    width = int.from_bytes(data[at + 3 : at + 5], "big")
    components = data[at + 5]
    if not height or not width or data[at] != 8 or components not in (1, 3):
        return None
    sampling = [data[at + 7 + 3 * i] & 15 for i in range(components)]
    one_scan = marker in _SEQUENTIAL and scan_components == components
    return Header(height, width, components, orientation, at + 1 if one_scan else 0, 8 * max(sampling, default=1))


def _orientation(exif: bytes) -> int:
    """The orientation tag of the first directory of an EXIF block, 1 (upright) where there is none."""
    order = "little" if exif[:2] == b"II" else "big"
    first = int.from_bytes(exif[4:8], order)
    for entry in range(int.from_bytes(exif[first : first + 2], order)):
        at = first + 2 + 12 * entry
        if int.from_bytes(exif[at : at + 2], order) == 0x0112:
            value = int.from_bytes(exif[at + 8 : at + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _cut(data: bytes, known: Header, rows: int) -> bytes:
    """The file with its height lowered to the block rows needed, and one more: upsampled colour looks one row on."""
    needed = (rows // known.row_unit + 2) * known.row_unit
    if needed >= known.height:
        return data
    return data[: known.height_at] + needed.to_bytes(2, "big") + data[known.height_at + 2 :]


def _fast(decoder: str) -> Callable[[bytes, Header, int, int], Pixels | None] | None:
    """The faster decoder to try first. It returns None for a file that is Pillow's to read, or to blame."""
    if decoder in ("auto", "simplejpeg") and _simplejpeg() is not None:
        return _decode_simplejpeg
    if decoder in ("auto", "opencv") and resampling.opencv() is not None:
        return _decode_opencv
    if decoder in ("simplejpeg", "opencv"):
        raise types.InputError(
            f'decode(decoder="{decoder}") needs that package. Install it: pip install "transformer-jax[images]"'
        )
    return None


def _decode_simplejpeg(data: bytes, known: Header, channels: int, reduce: int) -> Pixels | None:
    simplejpeg = _simplejpeg()
    assert simplejpeg is not None
    try:
        return simplejpeg.decode_jpeg(
            data,
            colorspace="GRAY" if channels == 1 else "RGB",
            min_height=-(-known.height // reduce) if reduce > 1 else 0,
            min_width=-(-known.width // reduce) if reduce > 1 else 0,
            min_factor=reduce,
            strict=False,
        )
    except ValueError:
        return None


def _decode_opencv(data: bytes, known: Header, channels: int, reduce: int) -> Pixels | None:
    cv2 = resampling.opencv()
    assert cv2 is not None
    kind = "GRAYSCALE" if channels == 1 else "COLOR"
    flag = getattr(cv2, f"IMREAD_REDUCED_{kind}_{reduce}" if reduce > 1 else f"IMREAD_{kind}")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None or pixels.shape[:2] != (-(-known.height // reduce), -(-known.width // reduce)):
        return None
    return pixels[..., None] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _decode_pillow(data: bytes, channels: int, *, reduce: int = 1, known: Header | None = None) -> Pixels:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            if reduce > 1 and known is not None:
                # draft picks the largest of its reductions that leaves at least this size
                image.draft(image.mode, (known.width // reduce, known.height // reduce))
            orientation = known.orientation if known is not None else image.getexif().get(0x0112, 1)
            upright = image if orientation == 1 else ImageOps.exif_transpose(image)
            return _array(upright, channels)
    except Exception as error:
        raise BadImage(_reason(error)) from error


def _array(image: "Image.Image", channels: int) -> Pixels:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float32)
        grey = np.clip(np.rint(values / 257 if image.mode.startswith("I") else values), 0, 255).astype(np.uint8)
        array = np.repeat(grey[..., None], channels, -1)
        if channels == 4:
            array[..., 3] = 255
        return array
    if image.mode == "P" and channels != 4:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    array = np.array(image if image.mode == mode else image.convert(mode))
    return array if array.ndim == 3 else array[..., None]


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split(" <_io", 1)[0]


@functools.cache
def _simplejpeg() -> python_types.ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
