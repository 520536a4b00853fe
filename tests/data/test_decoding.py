"""Decoders agree to the bit; every kind of file comes out upright with the channels asked for; damage is noticed."""

import importlib.util
import io
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from transformer_jax import types
from transformer_jax.data import decoding, image_ops, order, resampling

from . import fakes


def _installed(decoder, module):
    missing = importlib.util.find_spec(module) is None
    return pytest.param(decoder, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed"))


FAST = [_installed("simplejpeg", "simplejpeg"), _installed("opencv", "cv2")]
EVERY = pytest.mark.parametrize("decoder", ["pillow", *FAST])
FASTER = pytest.mark.parametrize("decoder", FAST)


def _photos():
    spec = importlib.util.find_spec("sklearn")
    folder = pathlib.Path(spec.origin).parent / "datasets" / "images"
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}


def _jpegs():
    files = _photos()
    for subsampling in (0, 1, 2):
        for size in ((37, 53), (64, 48), (8, 8), (1, 1), (17, 200)):
            name = f"{size[0]}x{size[1]} subsampling {subsampling}"
            files[name] = fakes.encoded(fakes.picture(*size), subsampling=subsampling, quality=90)
    files["progressive"] = fakes.encoded(fakes.picture(), progressive=True)
    files["restarts"] = fakes.encoded(fakes.picture(), restart_marker_blocks=2)
    files["optimised"] = fakes.encoded(fakes.picture(), optimize=True, quality=30)
    files["RGB inside"] = fakes.encoded(fakes.picture(), keep_rgb=True)
    files["comment"] = fakes.encoded(fakes.picture(), comment=b"\xff\xd9 not the end")
    return files


JPEGS = _jpegs()
GREY = fakes.encoded(fakes.picture(channels=1))


def test_every_decoder_is_under_contract():
    assert {"auto", "pillow", *(parameter.values[0] for parameter in FAST)} == set(decoding.DECODERS)


@FASTER
@pytest.mark.parametrize("name", JPEGS)
def test_a_faster_decoder_gives_the_same_pixels(name, decoder):
    for reduce in (1, 2, 4, 8):
        one, two = (decoding.decode(JPEGS[name], reduce=reduce, decoder=d) for d in ("pillow", decoder))
        assert np.array_equal(one, two) and two.flags.c_contiguous


@FASTER
def test_a_faster_decoder_is_the_one_that_decodes(monkeypatch, decoder):
    monkeypatch.setattr(decoding, "_decode_pillow", None)
    for data, channels in ((JPEGS["china"], 3), (JPEGS["progressive"], 3), (GREY, 1)):
        for reduce in (1, 2, 4, 8):
            assert decoding.decode(data, channels=channels, reduce=reduce, decoder=decoder).size


@FASTER
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("data", [GREY, JPEGS["progressive"]], ids=["grey", "colour"])
@pytest.mark.parametrize("reduce", [1, 4])
def test_the_decoders_agree_on_grey_and_colour(data, channels, reduce, decoder):
    one, two = (decoding.decode(data, channels=channels, reduce=reduce, decoder=d) for d in ("pillow", decoder))
    assert one.shape[-1] == channels and np.array_equal(one, two)


@FASTER
@pytest.mark.parametrize("damage", ["cut short", "zeros inside"])
def test_a_damaged_file_that_ends_well_gives_the_same_pixels(damage, decoder):
    data = JPEGS["china"]
    bad = data[:5000] + b"\xff\xd9" if damage == "cut short" else data[:60_000] + bytes(3000) + data[63_000:]
    assert np.array_equal(*(decoding.decode(bad, decoder=d) for d in ("pillow", decoder)))


@FASTER
def test_what_the_faster_decoder_refuses_is_pillows(decoder):
    tables = JPEGS["china"].index(b"\xff\xdb")
    bad = JPEGS["china"][:tables] + JPEGS["china"][tables + 69 * 2 :]  # without its quantisation tables
    with pytest.raises(decoding.BadImage, match="Error"):
        decoding.decode(bad, decoder=decoder)


@FAST[1].marks[0]
@pytest.mark.parametrize("name", ["china", "64x48 subsampling 2", "restarts"])
def test_cut_rows_leave_opencv_nothing_to_complain_of(name, capfd):
    decoding.decode(JPEGS[name], rows=2, decoder="opencv")
    assert capfd.readouterr() == ("", "")


@EVERY
@pytest.mark.parametrize("name", JPEGS)
def test_pixels_are_those_of_pillow(name, decoder):
    with Image.open(io.BytesIO(JPEGS[name])) as image:
        assert np.array_equal(decoding.decode(JPEGS[name], decoder=decoder), np.asarray(image))


@EVERY
@pytest.mark.parametrize("name", JPEGS)
def test_the_rows_kept_are_those_of_the_full_decode(name, decoder):
    full = decoding.decode(JPEGS[name], decoder=decoder)
    for rows in (1, 7, 8, 16, 17, 33, len(full)):
        rows = min(rows, len(full))
        assert np.array_equal(decoding.decode(JPEGS[name], rows=rows, decoder=decoder)[:rows], full[:rows])


def test_cutting_rows_decodes_less_where_it_can():
    assert len(decoding.decode(JPEGS["china"], rows=50)) == 64
    assert len(decoding.decode(JPEGS["progressive"], rows=5)) == 37


@EVERY
def test_a_reduced_image_is_the_mean_of_the_full_one(decoder):
    full = decoding.decode(JPEGS["china"], decoder=decoder)
    for factor in (2, 4, 8):
        reduced = decoding.decode(JPEGS["china"], reduce=factor, decoder=decoder)
        assert reduced.shape[:2] == (-(-427 // factor), 640 // factor)
        height = 427 // factor
        means = full[: height * factor].reshape(height, factor, 640 // factor, factor, 3).mean((1, 3))
        assert np.abs(reduced[:height] - means).mean() < 2.5


def _oriented(tag, kind="JPEG", byteorder="big"):
    picture = Image.fromarray(fakes.picture(24, 40))
    exif = Image.Exif()
    if byteorder == "big":
        exif.endian = ">"
    exif[0x010F] = "a camera"
    exif[0x0112] = tag
    buffer = io.BytesIO()
    picture.save(buffer, kind, exif=exif, subsampling=0) if kind == "JPEG" else picture.save(buffer, kind, exif=exif)
    return buffer.getvalue()


@EVERY
@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("byteorder", ["big", "little"])
def test_photos_are_turned_upright(tag, byteorder, decoder):
    data = _oriented(tag, byteorder=byteorder)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoding.decode(data, decoder=decoder), upright)
    assert decoding.size(data) == upright.shape[:2]
    assert decoding.decode(data, reduce=2, decoder=decoder).shape[:2] == tuple(n // 2 for n in upright.shape[:2])
    assert np.array_equal(decoding.decode(data, rows=3, decoder=decoder)[:3], upright[:3])


def test_other_formats_are_turned_upright_too():
    data = _oriented(6, "PNG")
    assert decoding.decode(data).shape == (40, 24, 3) and decoding.size(data) == (40, 24)


def _save(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


COLOUR = fakes.picture(12, 20)
OTHERS = {
    "PNG": (fakes.encoded(COLOUR, "PNG"), COLOUR),
    "PNG with alpha": (fakes.encoded(np.dstack([COLOUR, np.full((12, 20), 7, np.uint8)]), "PNG"), COLOUR),
    "grey PNG": (fakes.encoded(COLOUR[..., :1], "PNG"), COLOUR[..., :1].repeat(3, -1)),
    "16-bit PNG": (
        _save(Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 257), "PNG"),
        COLOUR[..., :1].repeat(3, -1),
    ),
    "1-bit PNG": (
        _save(Image.fromarray(COLOUR[..., 0] > 127), "PNG"),
        (COLOUR[..., :1] > 127).repeat(3, -1).astype(np.uint8) * 255,
    ),
    "WebP": (_save(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    "BMP": (_save(Image.fromarray(COLOUR), "BMP"), COLOUR),
    "TIFF": (_save(Image.fromarray(COLOUR), "TIFF"), COLOUR),
}


@EVERY
@pytest.mark.parametrize("name", OTHERS)
def test_every_format_has_three_channels(name, decoder):
    data, expected = OTHERS[name]
    assert np.array_equal(decoding.decode(data, decoder=decoder), expected)
    assert decoding.size(data) == (12, 20)


@EVERY
def test_palettes_and_cmyk_are_converted(decoder):
    smooth = fakes.picture(32, 32)
    palette = Image.fromarray(smooth).quantize(64)
    for data in (_save(palette, "GIF"), _save(palette, "PNG"), _save(palette, "PNG", transparency=3)):
        assert np.abs(decoding.decode(data, decoder=decoder).astype(int) - smooth).mean() < 20
    cmyk = _save(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95)
    assert decoding.header(cmyk) is None
    assert np.abs(decoding.decode(cmyk, decoder=decoder).astype(int) - smooth).mean() < 6


def test_alpha_is_kept_when_asked_for():
    assert decoding.decode(OTHERS["PNG with alpha"][0], channels=4)[0, 0, 3] == 7
    assert decoding.decode(OTHERS["PNG"][0], channels=4)[0, 0, 3] == 255


@EVERY
@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"<html>403</html>",
        JPEGS["china"][:5000],
        JPEGS["progressive"][:-400],
        GREY[:-100],
        OTHERS["PNG"][0][:-40],
        b"\xff\xd8\xff\xd9",
    ],
    ids=["empty", "a web page", "truncated", "truncated progressive", "truncated grey", "truncated PNG", "no frame"],
)
def test_damage_is_noticed(damaged, decoder):
    for options in ({}, {"rows": 2}, {"reduce": 2}):
        with pytest.raises(decoding.BadImage, match="Error"):
            decoding.decode(damaged, decoder=decoder, **options)


@EVERY
def test_a_few_bytes_after_the_end_are_harmless(decoder):
    data = JPEGS["china"] + b"\0" * 50
    assert np.array_equal(decoding.decode(data, decoder=decoder), decoding.decode(JPEGS["china"]))


def test_the_reduction_leaves_at_least_the_size_wanted():
    assert decoding.reduction((447, 600), (224, 224)) == 1
    assert decoding.reduction((448, 448), (224, 224)) == 2
    assert decoding.reduction((2000, 1000), (224, 224)) == 4
    assert decoding.reduction((4000, 4000), (224, 224)) == 8


@EVERY
@pytest.mark.parametrize("name", ["china", "progressive", "RGB inside"])
def test_decode_and_crop_together_give_the_pixels_of_one_after_the_other(name, decoder):
    decode, crop = image_ops.Decode(decoder=decoder), image_ops.InceptionCrop((300, 300) if name == "china" else 30)
    fused = image_ops.DecodeAndInceptionCrop(decode, crop)
    for i in range(20):
        rngs = [order.generator(0, 0, i) for _ in range(2)]
        apart = crop(decode({"image": JPEGS[name]}, rngs[0]), rngs[0])
        together = fused({"image": JPEGS[name]}, rngs[1])
        assert np.array_equal(together["image"], apart["image"])
        assert rngs[0].random() == rngs[1].random()


@EVERY
@pytest.mark.parametrize("data", [JPEGS["china"], _oriented(6), OTHERS["PNG"][0]], ids=["photo", "turned", "PNG"])
def test_a_crop_of_a_reduced_image_shows_the_same_place(data, decoder):
    decode, crop = image_ops.Decode(decoder=decoder), image_ops.InceptionCrop(6, 40, 100)
    fused = image_ops.DecodeAndInceptionCrop(decode, crop)
    for i in range(10):
        together = fused({"image": data}, order.generator(0, 0, i))["image"]
        image = decode({"image": data}, order.generator(0, 0, i))["image"]
        top, left, height, width = crop.box(*image.shape[:2], order.generator(0, 0, i))
        blocks = image[top : top + height, left : left + width]
        means = image_ops.Resize(6, method="area").apply(blocks, order.generator(0, 0, 0))
        assert np.abs(together.astype(int) - means).mean() < 40


@pytest.fixture
def fresh():
    """Installed packages are looked for anew, before and after."""
    for found in (decoding._simplejpeg, resampling.opencv):
        found.cache_clear()
    yield
    for found in (decoding._simplejpeg, resampling.opencv):
        found.cache_clear()


@pytest.mark.parametrize(("decoder", "module"), [("simplejpeg", "simplejpeg"), ("opencv", "cv2")])
def test_a_decoder_that_is_not_installed_is_an_error_with_the_remedy(monkeypatch, fresh, decoder, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(types.InputError, match=rf"decoder=\"{decoder}\"\) needs.*transformer-jax\[images\]"):
        decoding.decode(JPEGS["china"], decoder=decoder)
    assert decoding.decode(JPEGS["china"]).shape == (427, 640, 3)


def test_auto_is_the_first_that_is_installed(monkeypatch, fresh):
    for module, following in (("simplejpeg", "_decode_opencv"), ("cv2", None)):
        monkeypatch.setitem(sys.modules, module, None)
        for found in (decoding._simplejpeg, resampling.opencv):
            found.cache_clear()
        assert decoding._fast("auto") is (getattr(decoding, following) if following else None)
    assert decoding.decode(JPEGS["china"]).shape == (427, 640, 3)
