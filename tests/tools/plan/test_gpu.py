"""GPUs that are not there."""

import dataclasses
import importlib.util

import pytest

from tests.tools.plan import small
from transformer_jax import types
from transformer_jax.tools.plan import chips, estimate, gpu, page, report, topology

HAS_PLUGIN = importlib.util.find_spec("jax_cuda13_plugin") is not None
NVIDIA = [chip for chip in chips.CHIPS.values() if chip.family == "cuda"]


@pytest.mark.parametrize("chip", NVIDIA, ids=lambda chip: chip.name)
def test_every_gpu_has_a_description_with_balanced_braces_and_its_own_figures(chip):
    text, info = gpu.target(chip), gpu.TARGETS[chip.name]
    assert text.count("{") == text.count("}") == 3
    assert f"core_count: {info.multiprocessors}\n" in text and f"device_memory_size: {info.memory}\n" in text
    assert f"major: {info.capability[0]} minor: {info.capability[1]}" in text
    assert f'device_description_str: "{chip.kind}"' in text
    assert chip.memory == int(0.75 * info.memory) and chip.peak > 1e14 and chip.mfu


def test_descriptions_and_chips_are_the_same_gpus():
    assert {chip.name for chip in NVIDIA} == set(gpu.TARGETS)


@pytest.mark.parametrize("name, shape", [("h100:8", (1, 8)), ("H100:4x8", (4, 8)), ("a100-40:16", (1, 16))])
def test_a_topology_is_gpus_or_nodes_times_gpus(name, shape):
    chip, found, slices = topology.parse(name)
    assert (found, slices) == (shape, 1) and chip.family == "cuda"


@pytest.mark.parametrize("name", ["h100:2x2x2", "h100:0", "h100:2x0", "h100:8*2"])
def test_another_shape_is_refused(name):
    with pytest.raises(types.InputError, match="topology must be"):
        topology.parse(name)


def test_without_the_plugin_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(types.InputError, match="jax-cuda13-plugin"):
        topology.describe("h100:8")


def test_time_is_flops_over_an_assumed_share_of_the_peak_and_says_so(compiled):
    where = topology.Topology("h100:8", chips.CHIPS["h100"], (1, 8), 1, compiled.topology.devices)
    there = dataclasses.replace(compiled, topology=where)
    timed = estimate.of(there)
    chip = where.chip
    assert timed.compute == pytest.approx(there.flops / (8 * chip.peak / 2) / chip.mfu)  # float32 runs as TF32
    assert timed.source == "FLOPs over an assumed 35% of the peak"
    found = report.make(there, 10)
    assert found["time_source"] == timed.source and found["estimated_cycles"] is None
    assert found["how"]["compute_seconds"].startswith("assumption") and "cycles" not in page.text(found)
    said = " ".join(found["assumptions"])
    assert "35%" in said and "XLA_PYTHON_CLIENT_MEM_FRACTION" in said and "stand-in in pieces" in said
    assert "products run as TF32, whose peak is 495 TFLOP/s" in said
    assert found["how"]["available_bytes"].startswith("assumption") and found["how"]["fits"] != "fact, compiled"
    half = dict(there.settings, model=dict(there.settings["model"], dtype="bfloat16"))
    assert dataclasses.replace(there, settings=half).peak == (chip.peak, "bfloat16")


@pytest.mark.skipif(not HAS_PLUGIN, reason="the plugin of jax[cuda13] is not installed")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_is_compiled_for_gpus_and_compared_with_their_memory():
    found = report.plan(small.settings(model=dict(dtype="bfloat16")), "h100:1x8")
    assert found["fits"] and 0 < found["peak_bytes"] < found["available_bytes"] == int(0.75 * 84_942_979_072)
    assert found["collectives"] and found["step_seconds"] > 0 and found["device_kind"] == "NVIDIA H100 80GB HBM3"
