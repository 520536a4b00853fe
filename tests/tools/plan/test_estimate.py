import dataclasses

import pytest

from tests.tools.plan import small
from transformer_jax import types
from transformer_jax.tools.plan import chips, collectives, estimate, report

PROGRAM = """ENTRY %%main (a: f32[8]) -> f32[8] {
  %%a = f32[8]{0} parameter(0)
  ROOT %%b = f32[8]{0} fusion(%%a), kind=kLoop, calls=%%inner, backend_config={"estimated_cycles":"%d"}
}
"""


def test_the_range_is_above_the_roofline_and_no_wider_than_a_factor_of_2(compiled):
    assert estimate.ABOVE * estimate.BELOW < 2
    for cycles in (0, 1_000, 10**9):  # a program without estimates, a fast and a slow one
        found = estimate.of(dataclasses.replace(compiled, text=PROGRAM % cycles))
        assert found.cycles == cycles
        assert 0 < found.roofline <= found.low <= found.step_seconds <= found.high < 2 * found.low


@pytest.mark.parametrize("across, seconds", [(False, 1e9 / (200e9 / 2)), (True, 1e9 / 6.2e9)])
def test_a_part_of_the_devices_has_the_links_of_one_dimension_slices_the_network(across, seconds):
    one = collectives.Collective("all-gather", "fsdp", 4, 1, 10**9, 10**9, across)
    assert estimate.sending([one], chips.CHIPS["v5e"], 16) == pytest.approx(seconds)


def test_everybody_has_all_links():
    one = collectives.Collective("all-reduce", "data", 16, 1, 10**9, 10**9)
    assert estimate.sending([one], chips.CHIPS["v5e"], 16) == pytest.approx(1e9 / 200e9)


def test_a_length_in_epochs_needs_the_number_of_examples():
    settings = small.settings(train=dict(total="90 epochs"))
    with pytest.raises(types.InputError, match="total='90 epochs'. Give it: --examples N"):
        estimate.length(settings, 64)
    assert estimate.length(settings, 64, 640) == 900
    assert estimate.length(small.settings(train=dict(total="90 epochs"), data=dict(examples=1280)), 64) == 1800
    assert estimate.length(small.settings(), 64) == 100


KERNEL = """ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %b = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"
}
"""


@pytest.mark.parametrize("remat, forwards", [(None, 3.5), ("full", 4.5)])
def test_hand_written_attention_counts_as_its_operations_at_the_peak(compiled, remat, forwards):
    settings = dict(compiled.settings, model=dict(compiled.settings["model"], remat=remat))
    found = estimate.of(dataclasses.replace(compiled, text=KERNEL, settings=settings))
    products = 2 * (2 * 64 * 17**2 * 64)  # batch, tokens of a 4 x 4 grid and a class token, width
    assert found.in_kernels == pytest.approx(forwards * 2 * products / (8 * 61.5e12))  # two layers, eight devices
    assert found.step_seconds >= found.in_kernels + found.communication
    said = " ".join(report.assumptions(compiled, found))
    assert found.kernels == 1 and "1 runs of hand-written attention a step have no cycles" in said


def test_without_kernels_nothing_is_added_for_them(compiled):
    assert estimate.of(compiled).in_kernels == 0
