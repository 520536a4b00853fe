import importlib.util

import pytest

from transformer_jax import types
from transformer_jax.tools.plan import chips, topology

HAS_COMPILER = importlib.util.find_spec("libtpu") is not None


@pytest.mark.parametrize(
    "name, chip, shape, slices",
    [
        ("v3:16x16", "v3", (16, 16), 1),
        ("V5E:8x8*2", "v5e", (8, 8), 2),
        ("tpu7x:2x2x1", "7x", (2, 2, 1), 1),
        ("tpu-v4:4x4x4", "v4", (4, 4, 4), 1),
        ("v5litepod:4x4", "v5e", (4, 4), 1),
    ],
)
def test_a_name_is_a_chip_and_a_shape(name, chip, shape, slices):
    assert topology.parse(name) == (chips.CHIPS[chip], shape, slices)


@pytest.mark.parametrize(
    "name, message",
    [
        ("v3", "must be CHIP:CHIPSxCHIPS, such as v3:16x16"),
        ("v9:2x2", "one of v2, v3, v4, v5e, v5p, v6e, 7x.*: it is 'v9'"),
        ("v5e:4x4x4", "torus of 2 dimensions: 'v5e:4x4x4' has 3. Write it like v5e:4x4"),
        ("v4:4x4", "torus of 3 dimensions"),
        ("v3:0x4", "torus of 2 dimensions"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused(name, message):
    with pytest.raises(types.InputError, match=message):
        topology.parse(name)


def test_without_the_compiler_the_error_has_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(types.InputError, match="needs libtpu, .* EXTRAS=plan ./launch/local.sh plan"):
        topology.describe("v3:2x2")


def test_every_chip_has_a_peak_and_figures_that_can_be():
    for chip in chips.CHIPS.values():
        assert chip.peak > 1e13 and [c for c in chips.CHIPS.values() if c.kind == chip.kind] == [chip]
        assert 1e9 < chip.slices_bandwidth < chip.link_bandwidth < chip.memory_bandwidth < 1e13
        if chip.mfu is None:  # multiply-adds of a cycle: one or more units of 128 x 128
            assert chip.peak / chip.clock / 2 / 128**2 > 0.9


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra `plan`")
@pytest.mark.parametrize(
    "name, devices, cores",
    [
        ("v2:2x2", 8, 8),
        ("v3:16x16", 512, 512),
        ("v4:2x2x4", 16, 32),  # one device a chip, as on real v4
        ("v5e:1x1", 1, 1),
        ("v5e:2x2*2", 8, 8),
        ("v5p:2x2x1", 4, 8),
        ("v6e:8x8", 64, 64),
        ("7x:2x2x1", 8, 8),
    ],
)
def test_the_compiler_knows_every_chip_by_the_name_we_have_for_it(name, devices, cores):
    found = topology.describe(name)
    assert (len(found.devices), found.core_count) == (devices, cores)
    assert {device.device_kind for device in found.devices} == {found.chip.kind}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra `plan`")
def test_what_the_compiler_does_not_know_is_refused_in_its_words():
    with pytest.raises(types.InputError, match="that the compiler knows: 'v3:3x5'"):
        topology.describe("v3:3x5")
