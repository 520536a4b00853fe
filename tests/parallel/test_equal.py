"""One training step has the same loss and gradients on every mesh, by every preset, to 1e-6 in float32.

The goldens' cases are compared in test_goldens.py, and pmap in tests/experiment/test_parallel.py.
"""

import numpy as np
import pytest

from tests.parallel import small_vit
from tests.parallel.small_vit import Case

CASES = {
    "2x4 data x fsdp, ZeRO-1": Case("fsdp", (("data", 2), ("fsdp", 4)), optimizer_state="data"),
    "2x4 fsdp x tensor": Case("fsdp+tensor"),
    "sequence 8": Case("sequence"),
}
MORE = {
    "data 8": Case(),
    "fsdp 8": Case("fsdp"),
    "2x2x2 data x fsdp x tensor": Case("fsdp+tensor", (("data", 2), ("fsdp", 2), ("tensor", 2))),
    "2x4 data x sequence": Case("sequence", (("data", 2), ("sequence", 4))),
    "2x4 fsdp x sequence": Case("sequence", (("fsdp", 2), ("sequence", 4))),
    "4x2 fsdp x data, accumulated": Case("fsdp", (("fsdp", 4), ("data", 2)), accumulate=2),
    "unrolled": Case("fsdp", model=(("scan", False),)),
    "remat full": Case("fsdp", model=(("remat", "full"),)),
    "remat dots": Case("fsdp+tensor", model=(("remat", "dots"),)),
    "remat dots_no_batch": Case("sequence", model=(("remat", "dots_no_batch"),)),
}
ODD = (("class_token", True), ("kv_heads", 2), ("mlp", "gated"), ("qk_norm", True), ("pool", "map"), ("registers", 2))
ODD_CASES = {
    "2x4 fsdp x tensor, more devices than key heads": Case("fsdp+tensor", model=ODD),
    "2x4 data x sequence, tokens that do not divide": Case("sequence", (("data", 2), ("sequence", 4)), model=ODD),
}


def test_the_comparison_can_fail():
    grads, history = small_vit.numbers(small_vit.ALONE)
    assert history[0]["loss"] != history[1]["loss"]
    assert all(np.abs(grad).max() > 1e-5 for path, grad in grads.items() if path != "blocks/attention/key/bias")


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_one_device(name):
    small_vit.assert_equal(CASES[name], small_vit.ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_loss_and_gradients_are_those_of_one_device_in_every_other_way(name):
    small_vit.assert_equal(MORE[name], small_vit.ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_CASES)
def test_every_part_of_a_vit_is_the_same_where_it_does_not_divide(name):
    small_vit.assert_equal(ODD_CASES[name], Case(devices=1, model=ODD))


@pytest.mark.slow
def test_adafactor_is_the_same_where_its_moments_are_cut():
    cases = Case(devices=1, optimizer="adafactor"), Case("fsdp+tensor", optimizer="adafactor")
    alone, cut = ([step["loss"] for step in small_vit.program(case).run()[1]] for case in cases)
    np.testing.assert_allclose(cut, alone, atol=1e-6)
