"""The digest: the same everywhere, and different for every flipped bit."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer_jax.training import integrity

STACKS = {"blocks": 3}
FLAT = {
    "params/blocks/kernel": jax.random.normal(jax.random.key(0), (3, 16, 8)),
    "params/head": jax.random.normal(jax.random.key(1), (5,)).astype(jnp.bfloat16),
    "step": jnp.int32(3),
    "flags": jnp.array([True, False, True]),
    "small": jnp.linspace(0, 1, 7).astype(jnp.float8_e4m3fn),
    "key": jax.random.key_data(jax.random.key(7)),
}


def on_device(flat):
    """The digests as TPUs and GPUs make them: `integrity.digests` with nothing in the memory of the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity, "_on_host", lambda leaf: False)
        return integrity.digests(flat, STACKS)


def test_a_device_and_the_host_agree_on_every_dtype():
    found = integrity.digests(FLAT, STACKS)
    assert found == on_device(FLAT)
    assert {"params/blocks/0/kernel", "params/blocks/2/kernel", "step"} <= found.keys()


@pytest.mark.parametrize("spec", [(), (None, "x"), (None, None, "x"), (None, ("x", "y"))])
def test_sharding_does_not_change_it(spec):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    path = "params/blocks/kernel"
    sharded = {path: jax.device_put(FLAT[path], NamedSharding(mesh, PartitionSpec(*spec)))}
    assert on_device(sharded).items() <= on_device(FLAT).items()
    program = integrity._on_device(tuple(STACKS.items()), integrity._everywhere(sharded))
    sums = program(sharded)[path]
    assert sums.sharding.is_fully_replicated and len(sums.addressable_shards) == 8, "every process can read them"


@pytest.mark.parametrize("chunk", [1 << 20, 40, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_the_parts_that_processes_hold_add_up_to_it(count, chunk, monkeypatch):
    monkeypatch.setattr(integrity, "_CHUNK", chunk)
    array, total = np.asarray(FLAT["params/blocks/kernel"]), 0
    for rows in np.array_split(np.arange(16), count):
        for columns in (slice(0, 5), slice(5, 8)):
            total += integrity._piece_sum(array[:, rows, columns], [0, int(rows[0]), columns.start], array.shape)
    assert total % 2**32 == integrity.digest(array)
    wide = np.arange(6, dtype=np.int64) << 30  # two words an element
    halves = [integrity._piece_sum(wide[:2], [0], wide.shape), integrity._piece_sum(wide[2:], [2], wide.shape)]
    assert sum(halves) % 2**32 == integrity.digest(wide)


def test_any_single_flipped_bit_changes_it():
    array = np.asarray(jax.random.normal(jax.random.key(2), (40, 30)))
    before, rng = integrity.digest(array), np.random.default_rng(0)
    for _ in range(200):
        raw = bytearray(array.tobytes())
        bit = rng.integers(len(raw) * 8)
        raw[bit // 8] ^= 1 << (bit % 8)
        assert integrity.digest(np.frombuffer(bytes(raw), array.dtype)) != before


def test_swapped_elements_change_it():
    array = np.arange(10, dtype=np.float32)
    swapped = array.copy()
    swapped[[2, 3]] = swapped[[3, 2]]
    assert integrity.digest(array) != integrity.digest(swapped)


def test_long_arrays_are_summed_in_parts(monkeypatch):
    array = np.arange(1000, dtype=np.int32)
    whole = integrity.digest(array)
    monkeypatch.setattr(integrity, "_CHUNK", 77)
    assert integrity.digest(array) == whole


def test_a_part_is_summed_in_little_memory(monkeypatch):
    part = np.ones((2000, 100), np.float32)
    monkeypatch.setattr(integrity, "_CHUNK", 1000)
    tracemalloc.start()
    integrity._piece_sum(part, [0, 0], part.shape)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < part.nbytes / 10
