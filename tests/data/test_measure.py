"""The loader is cheap and its memory stays flat."""

import importlib.util
import json
import subprocess
import sys

import pytest

from transformer_jax.data import measure


def test_memory_is_flat_over_500_batches_of_files(capsys):
    preprocess = "decode | inception_crop(64) | flip_lr"
    measure.main([*"--images 20 --batches 500 --batch-size 1 --preprocess".split(), preprocess])
    result = json.loads(capsys.readouterr().out)
    early, late = result["resident_mb"]
    assert result["images"] == 500 and late < early + 20


def _measured(*arguments):
    # In a process of its own: in this one every call is type-checked.
    command = [sys.executable, "-m", "transformer_jax.data.measure", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)


@pytest.mark.slow
def test_batches_of_tiny_images_are_cheap_and_memory_is_flat():
    preprocess = "resize(24) | random_affine | shift(2)"
    result = _measured("--embedded", "digits", "--preprocess", preprocess, "--batch-size", "128", "--batches", "500")
    early, late = result["resident_mb"]
    assert result["cpu_ms_per_batch"] <= 10 and late < early + 10


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("simplejpeg") is None, reason="needs the images extra")
def test_a_photo_costs_less_than_two_milliseconds():
    assert _measured("--images", "500")["cpu_ms_per_image"] <= 1.9
