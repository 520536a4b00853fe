"""Letters and digits of the fonts that ship with matplotlib, as signed distance fields.

A distance field can be sampled anywhere and thresholded at any level, so one template a character gives strokes of any
thickness and edges of any softness. Every glyph is scaled to fill its box, the aspect kept: what a box cannot tell
apart (`c C`, `o O 0`, `l I 1`, `s S`, `v V`, `w W`, `x X`, `z Z`) is told apart by the typeface's detail or not at all.
"""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from transformer_jax import types

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10"),
)
SIDE = 48
BOX = 36
"""Pixels of a template, and of the box in its middle that the glyph fills."""
_POINTS = 64


class Templates(NamedTuple):
    """Every character in every typeface. Lengths are in units of the box: its edges lie at -0.5 and 0.5."""

    distance: Float32[np.ndarray, "faces characters side side"]
    """To the outline; negative inside the stroke."""
    half_width: Float32[np.ndarray, "faces characters"]
    """Half the thickness of the thickest stroke."""


@functools.cache
def templates() -> Templates:
    """Rendered once a process, in about half a second."""
    from scipy import ndimage

    rendered = np.stack([_render(face) for face in FACES])
    distance = np.empty(rendered.shape, np.float32)
    for at in np.ndindex(rendered.shape[:2]):
        inside = rendered[at] > 127
        from_inside, from_outside = (ndimage.distance_transform_edt(where) for where in (~inside, inside))
        to_edge = np.where(inside, 0.5 - from_outside, from_inside - 0.5)
        # Beside the outline the grey says, to a fraction of a pixel, where it runs.
        distance[at] = np.where(np.abs(to_edge) <= 0.5, 0.5 - rendered[at] / 255, to_edge) / BOX
    return Templates(distance, -distance.min((2, 3)))


def _render(face: str) -> UInt8[np.ndarray, "characters side side"]:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(_folder() / f"{face}.ttf", _POINTS, layout_engine=ImageFont.Layout.BASIC)
    rendered = []
    for character in CHARACTERS:
        left, top, right, bottom = font.getbbox(character)
        glyph = Image.new("L", (round(right - left), round(bottom - top)))
        ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=font)
        glyph = glyph.crop(glyph.getbbox())
        scale = BOX / max(glyph.size)
        width, height = (max(1, round(scale * length)) for length in glyph.size)
        canvas = Image.new("L", (SIDE, SIDE))
        canvas.paste(glyph.resize((width, height), Image.Resampling.BOX), ((SIDE - width) // 2, (SIDE - height) // 2))
        rendered.append(np.asarray(canvas))
    return np.stack(rendered)


def _folder() -> Path:
    found = importlib.util.find_spec("matplotlib")
    folder = None if found is None or found.origin is None else Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    if folder is None or not folder.is_dir():
        raise types.InputError(
            "glyphs are rendered from the fonts of matplotlib, which must be installed with its data. "
            f"Not found: {'matplotlib' if folder is None else folder}. "
            "Remedy: pip install --force-reinstall matplotlib."
        )
    return folder
