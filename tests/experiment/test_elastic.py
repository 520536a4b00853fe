"""A checkpoint belongs to no mesh: what one arrangement of devices saves, any other continues from, bit for bit."""

import contextlib
import functools
import math

import jax
import numpy as np
import pytest

from tests.experiment import small
from transformer_jax.experiment import program as programs
from transformer_jax.parallel import memory
from transformer_jax.training import checkpoint, integrity, layout
from transformer_jax.training import state as states

SPREAD = {
    "data": (8, {}),
    "four devices": (4, {}),
    "one device": (1, {}),
    "fsdp": (8, dict(parallel__rules="fsdp")),
    "hybrid": (8, dict(parallel__rules="hybrid", parallel__mesh="{'replica': 2, 'fsdp': 4}")),
    "tensor": (8, dict(parallel__rules="tensor", parallel__mesh="{'data': 4, 'tensor': 2}")),
    "fsdp+tensor": (8, dict(parallel__rules="fsdp+tensor", parallel__mesh="{'fsdp': 4, 'tensor': 2}")),
    "sequence": (8, dict(parallel__rules="sequence", parallel__mesh="{'data': 4, 'sequence': 2}")),
    "ZeRO-1": (8, dict(parallel__optimizer_state="data")),
    "offloaded": (8, dict(parallel__offload="optimizer")),
    "pmap": (8, dict(parallel__strategy="pmap")),
    "scanned": (8, dict(model__scan="True")),
    "unrolled": (8, dict(model__scan="False")),
}


@functools.cache
def program(name):
    devices, changes = SPREAD[name]
    settings = small.tiny(model__num_classes="10", **changes)
    return programs.Program(settings, (-1.0, 1.0), devices=jax.devices()[:devices])


def drawn(spread):
    """A state of random numbers where the program wants it; nothing is compiled."""

    def leaf(path, wanted):
        rng = np.random.default_rng(sum(map(ord, states.name(path))))
        bits = rng.integers(0, 2**16, wanted.shape) if wanted.dtype.kind in "iu" else rng.normal(size=wanted.shape)
        return memory.placed(np.asarray(bits, wanted.dtype), wanted.sharding)

    return jax.tree_util.tree_map_with_path(leaf, spread.abstract)


@pytest.fixture(scope="module")
def digests():
    """Of the leaves of that state, as numpy alone sees them."""
    spread = program("one device")
    return integrity.digests({k: np.asarray(x) for k, x in states.flatten(drawn(spread)).items()}, spread.model.stacks)


def restored(folder, name, *, spread):
    with contextlib.closing(
        checkpoint.Checkpointer(folder, stacks=program(name).model.stacks, spread=spread)
    ) as reader:
        return reader.restore(program(name).abstract)


def saved(folder, name, *, spread):
    with contextlib.closing(checkpoint.Checkpointer(folder, stacks=program(name).model.stacks, spread=spread)) as saver:
        saver.save(drawn(program(name)), states.Clock(step=3, examples=48))
    return folder


@pytest.mark.parametrize("before", ["fsdp+tensor", "offloaded"])
def test_every_arrangement_continues_from_any(tmp_path, digests, before):
    saved(tmp_path, before, spread=False)
    for after in SPREAD:
        state, clock, meta = restored(tmp_path, after, spread=False)
        assert (clock.step, clock.examples, meta["digest"]) == (3, 48, digests), after
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == program(after).shardings, after
        assert integrity.digests(states.flatten(state), program(after).model.stacks) == digests, after


@pytest.mark.parametrize(("before", "after"), [("ZeRO-1", "tensor"), ("offloaded", "fsdp"), ("fsdp", "offloaded")])
def test_as_processes_save_and_read_it(tmp_path, digests, before, after, monkeypatch):
    """Cut, summed and joined on the devices, as a state no process sees whole; what is offloaded, there."""
    if before == "offloaded":  # summed as on a TPU, once: it is another program to compile
        monkeypatch.setattr(integrity, "_on_host", lambda leaf: leaf.sharding.memory_kind == memory.HOST)
    saved(tmp_path, before, spread=True)
    state, _, meta = restored(tmp_path, after, spread=True)
    assert meta["digest"] == digests
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == program(after).shardings
    assert integrity.digests(states.flatten(state), program(after).model.stacks) == digests


BRIEF = "moments in bfloat16"


@pytest.mark.parametrize("spread", [False, True], ids=["one process", "as processes do"])
@pytest.mark.parametrize(("before", "after"), [("data", BRIEF), (BRIEF, "fsdp"), ("offloaded", BRIEF)])
def test_first_moments_may_be_kept_in_less_or_more(tmp_path, monkeypatch, before, after, spread):
    monkeypatch.setitem(SPREAD, BRIEF, (8, dict(optim__moment_dtype="bfloat16", parallel__offload="optimizer")))
    state, _, _ = restored(saved(tmp_path, before, spread=spread), after, spread=spread)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == program(after).shardings
    given, wanted = states.flatten(drawn(program(before))), states.flatten(program(after).abstract)
    for path, leaf in states.flatten(state).items():
        assert leaf.dtype == wanted[path].dtype, path
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(given[path]).astype(leaf.dtype), err_msg=path)


def on_a_device(arrays):
    """Bytes in the first device's own memory."""
    meshed = [array for array in arrays if isinstance(array.sharding, jax.sharding.NamedSharding)]
    near = [array for array in meshed if array.sharding.memory_kind != memory.HOST]
    return sum(math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize for array in near)


@pytest.mark.parametrize("name", ["data", "offloaded"])
def test_what_is_saved_and_read_is_not_on_every_device_a_second_time(monkeypatch, name):
    """Eight devices that each hold all of it: an eighth more while it is saved or read, and one leaf that was far."""
    spread = program(name)
    stacks, flat, held = spread.model.stacks, states.flatten(drawn(spread)), []
    own, largest = on_a_device(flat.values()), max(leaf.nbytes for leaf in flat.values())
    whole, far = sum(leaf.nbytes for leaf in flat.values()), name == "offloaded"
    assert (own < whole) == far
    before = on_a_device(jax.live_arrays())

    def watched(make):
        def made(*args):
            held.append(on_a_device(jax.live_arrays()) - before)
            return make(*args)

        return made

    monkeypatch.setattr(layout, "_cut", watched(layout._cut))
    monkeypatch.setattr(layout, "_join", watched(layout._join))
    neutral = layout.to_neutral(flat, stacks, spread=True)
    saved = on_a_device(neutral.values())
    assert saved < 1.1 * whole / 8 and max(held) <= saved + far * largest
    held.clear()
    again = layout.from_neutral(neutral, stacks, states.flatten(spread.abstract))
    assert not neutral and max(held) <= saved + own
    same = jax.tree.map(lambda one, two: np.array_equal(one, two) and one.sharding == two.sharding, again, flat)
    assert all(same.values())
