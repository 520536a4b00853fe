"""Numbers and names that must not move: a change of either breaks checkpoints people have."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("make_vit_forward", GOLDEN / "make_vit_forward.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)
EXPECTED = json.loads((GOLDEN / "vit_forward.json").read_text())


def test_the_file_holds_every_option():
    assert set(EXPECTED) == set(maker.OPTIONS)


@pytest.mark.parametrize("name", EXPECTED)
def test_logits_and_parameter_paths_are_those_of_the_first_release(name):
    got = maker.entry(name)
    assert got["parameters"] == EXPECTED[name]["parameters"]
    np.testing.assert_allclose(got["logits"], EXPECTED[name]["logits"], atol=2e-5)
