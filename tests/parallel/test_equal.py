"""One training step has the same loss and gradients on every mesh, by every preset, to 1e-6 in float32."""

import functools

import numpy as np
import pytest

from tests.parallel import small_vit
from tests.parallel.small_vit import Case

ALONE = Case(devices=1)
CASES = {
    "2x4 data x fsdp, ZeRO-1": Case("fsdp", (("data", 2), ("fsdp", 4)), optimizer_state="data"),
    "2x4 fsdp x tensor": Case("fsdp+tensor"),
    "sequence 8": Case("sequence"),
}
MORE = {
    "data 8": Case(),
    "fsdp 8": Case("fsdp"),
    "hybrid 2x4": Case("hybrid", (("replica", 2), ("fsdp", 4))),
    "tensor 8": Case("tensor"),
    "2x2x2 data x fsdp x tensor": Case("fsdp+tensor", (("data", 2), ("fsdp", 2), ("tensor", 2))),
    "2x4 data x sequence": Case("sequence", (("data", 2), ("sequence", 4))),
    "2x4 fsdp x sequence": Case("sequence", (("fsdp", 2), ("sequence", 4))),
    "ZeRO-1 over data 8": Case(optimizer_state="data"),
    "data 8, accumulated": Case(accumulate=2),
    "fsdp 8, accumulated": Case("fsdp", (("fsdp", 4), ("data", 2)), accumulate=2),
    "unrolled": Case("fsdp", model=(("scan", False),)),
    "remat full": Case("fsdp", model=(("remat", "full"),)),
    "remat dots": Case("fsdp+tensor", model=(("remat", "dots"),)),
    "remat dots_no_batch": Case("sequence", model=(("remat", "dots_no_batch"),)),
    "as accelerators run it": Case("fsdp", plain=True),
}
ODD = (("class_token", True), ("kv_heads", 2), ("mlp", "gated"), ("qk_norm", True), ("pool", "map"), ("registers", 2))
ODD_CASES = {
    "fsdp 8": Case("fsdp", model=ODD),
    "2x4 fsdp x tensor, more devices than key heads": Case("fsdp+tensor", model=ODD),
    "2x4 data x sequence, tokens that do not divide": Case("sequence", (("data", 2), ("sequence", 4)), model=ODD),
}


@functools.cache
def numbers(case):
    return small_vit.program(case).run()


def assert_equal(case, alone):
    (grads, history), (expected, expected_history) = numbers(case), numbers(alone)
    assert grads.keys() == expected.keys() and len(grads) > 20
    for path, grad in grads.items():
        np.testing.assert_allclose(grad, expected[path], atol=1e-6, err_msg=path)
    for step, metrics in enumerate(history):
        assert metrics["stop"] == 0.0
        np.testing.assert_allclose(metrics["loss"], expected_history[step]["loss"], atol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], expected_history[step]["grad_norm"], rtol=1e-5)


def test_the_comparison_can_fail():
    grads, history = numbers(ALONE)
    assert history[0]["loss"] != history[1]["loss"]
    assert all(np.abs(grad).max() > 1e-5 for path, grad in grads.items() if path != "blocks/attention/key/bias")


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_one_device(name):
    assert_equal(CASES[name], ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_loss_and_gradients_are_those_of_one_device_in_every_other_way(name):
    assert_equal(MORE[name], ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_CASES)
def test_every_part_of_a_vit_is_the_same_where_it_does_not_divide(name):
    assert_equal(ODD_CASES[name], Case(devices=1, model=ODD))


@pytest.mark.slow
def test_adafactor_is_the_same_where_its_moments_are_cut():
    alone = small_vit.program(Case(devices=1, optimizer="adafactor")).run()[1]
    for case in (Case("fsdp", optimizer="adafactor"), Case("fsdp+tensor", optimizer="adafactor")):
        history = small_vit.program(case).run()[1]
        np.testing.assert_allclose([m["loss"] for m in history], [m["loss"] for m in alone], atol=1e-6)
