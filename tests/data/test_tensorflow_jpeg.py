"""Decoded JPEGs are TensorFlow's with its accurate transform, to the bit, and near those of its default one."""

import importlib.util
import pathlib

import numpy as np
import pytest

from transformer_jax.data import decoding

SCRIPT = pathlib.Path(__file__).parents[1] / "golden" / "make_tensorflow_jpeg.py"
_spec = importlib.util.spec_from_file_location("make_tensorflow_jpeg", SCRIPT)
JPEG = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(JPEG)
MODULES = {"pillow": "PIL", "simplejpeg": "simplejpeg", "opencv": "cv2"}


@pytest.fixture(scope="module")
def golden():
    return JPEG.read()


@pytest.mark.parametrize("decoder", MODULES)
@pytest.mark.parametrize("name", JPEG.CUTS)
def test_pixels_are_tensorflows(name, decoder, golden):
    pytest.importorskip(MODULES[decoder])
    ours = decoding.decode(golden[name].tobytes(), decoder=decoder)
    assert np.array_equal(ours, golden[f"{name}/accurate"])
    # By default TensorFlow transforms in a hurry, and darker.
    difference = ours.astype(int) - golden[f"{name}/default"]
    assert np.max(np.abs(difference)) <= 6 and 0.7 < difference.mean() < 0.9


def test_the_files_are_of_either_kind(golden):
    assert [decoding.header(golden[name].tobytes()).row_unit for name in ("4:2:0", "4:4:4")] == [16, 8]


@pytest.mark.slow
def test_the_golden_pixels_are_what_tensorflow_decodes(golden):
    pytest.importorskip("tensorflow", reason="only TensorFlow can make the file again")
    made = JPEG.decode({name: golden[name] for name in JPEG.CUTS})
    assert golden.keys() == made.keys() | JPEG.CUTS.keys()
    assert all(np.array_equal(made[name], golden[name]) for name in made)
