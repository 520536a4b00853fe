import numpy as np
import pytest
from PIL import Image

from transformer_jax import types
from transformer_jax.data import order, preview, sources


def sheet(tmp_path, preprocess, **kwargs):
    path = tmp_path / "sheet.png"
    preview.contact_sheet(sources.open_source("digits"), preprocess, path, **kwargs)
    return np.asarray(Image.open(path))


def test_the_first_tile_is_the_first_example_of_the_shuffled_order(tmp_path):
    pixels = sheet(tmp_path, "decode", count=4, seed=3)
    source = sources.open_source("digits")
    [(epoch, index)] = order.Order(len(source), seed=3)(np.arange(1))
    tile = pixels[4 : 4 + 96 : 12, 4 : 4 + 96 : 12, 0]
    assert epoch == 0 and np.array_equal(tile, source[index]["image"][..., 0])


@pytest.mark.parametrize(("count", "shape"), [(1, (118, 104, 3)), (4, (232, 204, 3)), (5, (232, 304, 3))])
def test_tiles_fill_a_grid_nearly_square(tmp_path, count, shape):
    assert sheet(tmp_path, "decode", count=count).shape == shape


def test_random_ops_and_scaled_pixels_are_shown(tmp_path):
    pixels = sheet(tmp_path, "decode | resize(26) | random_crop(24) | value_range(-1, 1)", count=2)
    assert pixels.min() == 0 and pixels.max() == 255


def test_a_sheet_holds_no_more_than_the_source(tmp_path):
    path = tmp_path / "sheet.png"
    preview.contact_sheet(sources.open_source("digits", "train[:3]"), "decode", path, count=64)
    assert Image.open(path).size == (204, 232)


def test_an_image_that_was_dropped_is_an_input_error(tmp_path):
    with pytest.raises(types.InputError, match='1 or 3 channels.*not NoneType. Begin with "decode"'):
        sheet(tmp_path, "decode | keep('label')")


def test_a_corrupt_image_and_a_place_that_cannot_be_written_are_input_errors(tmp_path):
    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(types.InputError, match=r"Bad image, example 0, .*cat/1.png"):
        preview.contact_sheet(sources.open_source(f"folder:{folder.parent}"), "decode", tmp_path / "sheet.png")
    with pytest.raises(types.InputError, match="written to a file.*No such file or directory"):
        sheet(tmp_path / "nowhere", "decode", count=1)
