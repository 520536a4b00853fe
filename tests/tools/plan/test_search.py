"""The search for what fits, with a compiler that is a formula."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax.tools.plan import estimate, search

COST = {None: 1.0, "dots": 1.1, "dots_no_batch": 1.2, "full": 1.33}
MEMORY = {None: 16.0, "dots": 8.0, "dots_no_batch": 4.0, "full": 1.0}


def compiler(memory, state=4.0):
    """An `attempt` for devices of so much memory: the batch needs more, fsdp cuts the state and sends more."""
    asked = []

    def attempt(choice):
        asked.append(choice)
        needed = state / choice.fsdp + MEMORY[choice.remat] * choice.batch_size / 1024
        seconds = COST[choice.remat] * choice.batch_size + (10.0 * choice.fsdp if choice.fsdp > 1 else 0.0)
        timed = estimate.Estimate(seconds, seconds, seconds, seconds, 0.0, 0.0, 0, (), (), 0, 0)
        return search.Try(
            choice, SimpleNamespace(needed_bytes=int(needed * 2**30)), timed if needed <= memory else None
        )

    return attempt, asked


def test_the_least_recomputation_that_fits_is_found_and_the_batch_doubled_until_it_does_not():
    attempt, _ = compiler(memory=100.0)
    tries = search.look(attempt, 64, 1024)
    assert [(one.choice.remat, one.choice.fsdp, one.choice.batch_size, bool(one.timed)) for one in tries] == [
        (None, 1, 1024, True),
        (None, 1, 2048, True),
        (None, 1, 4096, True),
        (None, 1, 8192, False),
    ]


def test_where_the_state_is_too_large_for_a_device_it_is_cut():
    attempt, _ = compiler(memory=3.0)
    tries = search.look(attempt, 64, 1024)
    assert all(one.timed is None for one in tries if one.choice.fsdp == 1)
    best = max((one for one in tries if one.choice.batch_size == 1024), key=lambda one: one.pace)
    assert best.choice.remat == "full" and best.choice.fsdp == 8  # the fewest that fit send least


def test_there_are_never_more_compiles_than_the_limit_and_none_twice():
    for memory in (0.1, 3.0, 6.0, 50.0, 1e9):
        attempt, asked = compiler(memory)
        tries = search.look(attempt, 64, 1024)
        assert len(asked) == len(tries) <= search.LIMIT and len(set(asked)) == len(asked)


def test_axis_sizes_divide_the_devices():
    assert search.axis_sizes(64) == [16, 8, 64, 32] and search.axis_sizes(4) == [4] and search.axis_sizes(1) == []


def test_a_choice_changes_remat_mesh_and_batch_alone():
    settings = dict(model=dict(name="vit", remat=None), data=dict(batch_size=8), parallel=dict(rules="data", mesh=None))
    changed = search.Choice("full", 16, 4096).settings(settings)
    assert changed["model"] == dict(name="vit", remat="full") and changed["data"] == dict(batch_size=4096)
    assert changed["parallel"] == dict(rules="fsdp", mesh={"data": -1, "fsdp": 16})
    assert settings["model"]["remat"] is None


def test_the_table_has_a_line_a_try_and_says_what_does_not_fit():
    attempt, _ = compiler(memory=100.0)
    lines = search.table(search.look(attempt, 64, 1024)).splitlines()
    assert len(lines) == 5 and lines[-1].endswith("does not fit") and "none" in lines[1]


@dataclasses.dataclass
class Config:
    prefix: int
    grid: tuple[int, int]


@pytest.mark.parametrize("prefix, grid, warned", [(1, (16, 16), True), (0, (16, 16), False), (1, (14, 14), False)])
def test_a_class_token_that_begins_another_tile_is_named(prefix, grid, warned):
    compiled = SimpleNamespace(program=SimpleNamespace(model=SimpleNamespace(config=Config(prefix, grid))))
    said = list(search.token_warnings(compiled))
    assert bool(said) is warned
    assert not warned or "257 tokens take 384 places of a TPU's tiles, 256 would take 256" in said[0]


@pytest.mark.parametrize("rows, warned", [(160, True), (128, False)])
def test_parts_that_fill_no_tile_are_named(rows, warned):
    mesh = Mesh(np.array(jax.devices()[:8]), ("fsdp",))
    cut = jax.ShapeDtypeStruct((rows, 256), np.float32, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    compiled = SimpleNamespace(program=SimpleNamespace(abstract=SimpleNamespace(params={"up": {"kernel": cut}})))
    said = list(search.shard_warnings(compiled))
    assert bool(said) is warned
    assert not warned or "up/kernel from 160 to 20 (multiples of 8 fit)" in said[0]
