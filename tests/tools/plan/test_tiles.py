"""What fills the tiles of a TPU badly."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax.tools.plan import chips, tiles


@dataclasses.dataclass
class Config:
    prefix: int
    grid: tuple[int, int]


def step(chip="v5e", params=None, prefix=0, grid=(14, 14)):
    program = SimpleNamespace(
        model=SimpleNamespace(config=Config(prefix, grid)), abstract=SimpleNamespace(params=params or {})
    )
    return SimpleNamespace(program=program, topology=SimpleNamespace(chip=chips.CHIPS[chip]))


def cut(shape, axis=0):
    """A parameter whose `axis` is cut over eight devices."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("fsdp",))
    spec = PartitionSpec(*[None] * axis, "fsdp")
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, spec))


@pytest.mark.parametrize("prefix, grid, warned", [(1, (16, 16), True), (0, (16, 16), False), (1, (14, 14), False)])
def test_a_class_token_that_begins_another_tile_is_named(prefix, grid, warned):
    said = tiles.warnings(step(prefix=prefix, grid=grid))
    assert bool(said) is warned
    assert not warned or "257 tokens take 384 places of a TPU's tiles, 256 would take 256" in said[0]


@pytest.mark.parametrize("rows, warned", [(160, True), (128, False)])
def test_query_kernels_cut_into_rows_that_fill_no_tile_are_named(rows, warned):
    """(layers, embed, heads, head): the rows are neither of the last two axes."""
    said = tiles.warnings(step(params={"query": cut((4, rows, 16, 80), axis=1), "up": cut((4, 1280, 640), axis=1)}))
    assert bool(said) is warned
    assert not warned or "20% of the parameters" in said[0] and "query from 160 to 20" in said[0]


def test_small_ones_do_not_matter():
    small = {"scale": cut((160,)), "position": cut((160, 4)), "up": cut((4, 1280, 640), axis=1)}
    assert tiles.warnings(step(params=small)) == []


def test_a_gpu_has_no_tiles():
    wrong = {"query": cut((160, 1280))}
    assert tiles.warnings(step("v3", wrong, 1, (16, 16))) != [] == tiles.warnings(step("h100", wrong, 1, (16, 16)))
