"""Logits are those of timm, of Hugging Face and of Google's linen code, for the files we write (promise of parity).

The golden files are made by `tests/golden/make_*_parity.py`, where the other library loads our file strictly and its
own file is read back by us bit for bit.
"""

from pathlib import Path

import numpy as np
import pytest

from transformer_jax.transfer import convert

from . import parity

GOLDEN = Path(__file__).parents[1] / "golden"


def _cases(table):
    return [pytest.param(name, marks=[] if name.startswith("tiny") else [pytest.mark.slow]) for name in table]


def _compare(path, name, config, golden):
    expected = np.load(GOLDEN / golden)[name]
    parity.check(parity.logits(path, parity.images(config)), expected)


@pytest.mark.parametrize("name", _cases(parity.TIMM))
def test_the_logits_of_our_files_are_timms(tmp_path, name):
    config = parity.TIMM[name]
    saved = convert.save(tmp_path / "model.safetensors", parity.build(config), config, to="timm")
    _compare(saved.files[0], name, config, "timm_parity.npz")


@pytest.mark.parametrize("name", _cases(parity.HUGGING_FACE))
def test_the_logits_of_our_files_are_hugging_faces(tmp_path, name):
    config = parity.HUGGING_FACE[name]
    saved = convert.save(tmp_path / "model.safetensors", parity.build(config), config, to="hf")
    _compare(saved.files[0], name, config, "huggingface_parity.npz")


@pytest.mark.parametrize("name", _cases(parity.LINEN))
def test_the_logits_of_our_files_are_those_of_the_linen_code(tmp_path, name):
    config = parity.LINEN[name]
    saved = convert.save(tmp_path / "x.npz", parity.build(config), config, to="npz")
    _compare(saved.files[0], name, config, "linen_parity.npz")


def test_a_file_of_timm_without_any_note_is_enough_for_its_logits(tmp_path):
    config = parity.TIMM["Ti/16"] | dict(depth=2, num_classes=1000)
    saved = convert.save(tmp_path / "x" / "model.safetensors", parity.build(config), config, to="timm")
    alone = parity.strip(saved.files[0], tmp_path / "alone.safetensors")
    found = convert.model_of(convert.load(alone))
    assert (found["heads"], found["activation"], found["image_size"]) == (3, "gelu_erf", 224)
    image = parity.images(config)
    np.testing.assert_array_equal(parity.logits(alone, image), parity.logits(saved.files[0], image))


def test_every_golden_logit_is_of_a_case():
    for table, file in (
        (parity.TIMM, "timm_parity.npz"),
        (parity.HUGGING_FACE, "huggingface_parity.npz"),
        (parity.LINEN, "linen_parity.npz"),
    ):
        assert set(np.load(GOLDEN / file)) == set(table)
