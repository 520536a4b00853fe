"""Every leaf of a training state lies where it did, and a step sends what it did: tests/golden/make_parallel.py."""

import json
import math

import pytest

from tests.golden import make_parallel
from tests.parallel import small_vit
from transformer_jax import paths
from transformer_jax.parallel import rules

SHARDINGS = json.loads((make_parallel.FOLDER / "shardings.json").read_text())
COLLECTIVES = json.loads((make_parallel.FOLDER / "collectives.json").read_text())
ALL = make_parallel.CASES | make_parallel.ADAFACTOR
LAYERS = small_vit.MODEL["depth"]
TOKENS = 4 * small_vit.BATCH * 16 * small_vit.MODEL["width"]
"""Bytes of the tokens of a batch, which are also those of all queries, keys or values."""
LITTLE = 2000
"""Bytes of scalars: losses and norms of gradients."""


def bytes_sent(name, kind, axes):
    return sum(row["bytes"] for row in COLLECTIVES[name] if (row["kind"], row["axes"]) == (kind, axes))


def bytes_of(name, cut_over=None):
    """Of all parameters, or of those that are cut over an axis of the mesh."""
    program = small_vit.program(make_parallel.CASES[name])
    where = paths.flatten(program.shardings.params)
    leaves = paths.flatten(program.abstract.params)
    taken = [path for path, place in where.items() if cut_over is None or cut_over in str(place.spec)]
    return sum(4 * math.prod(leaves[path].shape) for path in taken)


def test_every_preset_has_goldens():
    assert set(rules.PRESETS) <= set(COLLECTIVES) == set(make_parallel.CASES)
    assert set(SHARDINGS) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_leaf_lies_where_it_did(name):
    assert make_parallel.placed(ALL[name]) == SHARDINGS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIVES)
def test_a_step_sends_what_it_did_and_computes_what_one_device_does(name):
    assert make_parallel.sent(make_parallel.CASES[name]) == COLLECTIVES[name]
    small_vit.assert_equal(make_parallel.CASES[name])


def test_data_reduces_every_gradient_once_and_sends_nothing_else():
    assert {row["kind"] for row in COLLECTIVES["data"]} == {"all-reduce"}
    assert 0 <= bytes_sent("data", "all-reduce", "data") - bytes_of("data") < LITTLE


def test_fsdp_gathers_parameters_forward_and_backward_and_no_activation():
    assert {row["kind"] for row in COLLECTIVES["fsdp"]} == {"all-gather", "all-reduce"}
    blocks, cut = 2 * LAYERS * 4 * (4 * 64 * 64 + 2 * 64 * 128) // 2, bytes_of("fsdp", "fsdp")
    assert bytes_sent("fsdp", "all-gather", "fsdp") == blocks + cut  # what lies outside the blocks stays gathered
    assert 0 <= bytes_sent("fsdp", "all-reduce", "fsdp") - bytes_of("fsdp") < LITTLE


def test_hybrid_sends_only_parts_of_gradients_between_replicas():
    cut, all_of_it = bytes_of("hybrid", "fsdp"), bytes_of("hybrid")
    assert bytes_sent("hybrid", "all-gather", "fsdp") == bytes_sent("fsdp", "all-gather", "fsdp")
    table = 4 * 16 * 64  # of the positions, whose gradient is reduced over everything at once
    assert bytes_sent("hybrid", "all-reduce", "replica") == (cut - table) // 4
    assert bytes_sent("hybrid", "all-reduce", "replica+fsdp") < all_of_it - cut + table + LITTLE


def test_tensor_reduces_tokens_twice_a_block_forward():
    """And backward once for the MLP, once each for what queries, keys and values were made from."""
    assert {row["kind"] for row in COLLECTIVES["tensor"]} == {"all-reduce"}
    assert 0 <= bytes_sent("tensor", "all-reduce", "tensor") - (2 + 1 + 3) * LAYERS * TOKENS < LITTLE


def test_fsdp_and_tensor_together_send_no_more_than_each_alone():
    assert bytes_sent("fsdp+tensor", "all-reduce", "tensor") < bytes_sent("tensor", "all-reduce", "tensor")
    assert bytes_sent("fsdp+tensor", "all-gather", "fsdp") < bytes_sent("fsdp", "all-gather", "fsdp")
    assert not [row for row in COLLECTIVES["fsdp+tensor"] if row["axes"] == "?" or row["kind"] == "all-to-all"]


def test_sequence_gathers_keys_and_values_and_nothing_else_of_the_tokens():
    table = 3 * 4 * 16 * 64  # of the positions, of which every device has a part: the update, and its two moments
    assert bytes_sent("sequence", "all-gather", "sequence") == 2 * LAYERS * TOKENS + table
    reduced = bytes_of("sequence") + 2 * LAYERS * TOKENS + TOKENS // 16  # gradients of parameters, keys, values; pool
    assert bytes_sent("sequence", "all-reduce", "sequence") <= reduced + LITTLE


def test_zero_1_gathers_every_cut_parameter_once_after_the_update():
    assert bytes_sent("data, ZeRO-1", "all-gather", "data") == bytes_of("fsdp", "fsdp")
    assert bytes_sent("data, ZeRO-1", "all-reduce", "data") < bytes_of("data") + LITTLE
