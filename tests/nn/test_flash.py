"""Splash attention in interpret mode beside the formulas it replaces, alone and on shards."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import axes
from transformer_jax.nn import flash, kernels, masks
from transformer_jax.parallel import mesh, rules

SEGMENTS = jnp.cumsum(jnp.arange(2 * 130).reshape(2, 130) % 47 == 0, axis=1)
CASES = {
    "no mask": {},
    "padding, nothing kept": {"mask": masks.padding(jnp.array([57, 0]), 130)},
    "causal and padded in front": {"causal": True, "mask": ~masks.padding(jnp.array([5, 0]), 130)},
    "causal segments": {"causal": True, "segments": masks.Segments(SEGMENTS, SEGMENTS)},
}


def draw(length=130, memory=130, heads=4, kv_heads=2, head_dim=8, value_dim=8, batch=2):
    rng = np.random.default_rng(0)
    sizes = (length, heads, head_dim), (memory, kv_heads, head_dim), (memory, kv_heads, value_dim)
    return [jnp.asarray(rng.normal(size=(batch, *size)), jnp.float32) for size in sizes]


class Tpu(rules.Placement):
    """A mesh of CPUs that takes itself for TPUs."""

    hardware = axes.Hardware("tpu", "TPU v5 lite")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(flash, "attend", functools.partial(flash.attend, interpret=True))


def on_mesh(shape=None, preset="data"):
    shape = shape or {"data": 1}
    devices = jax.devices()[: math.prod(shape.values())]
    return axes.placed(Tpu(mesh.make(shape, devices, preset=preset), preset))


def both(arrays, given, where):
    """Output and gradients with splash as placed, and plainly on one device."""

    def loss(backend, *arrays):
        out = kernels.attend(*arrays, **given, backend=backend)
        return jnp.sum(jnp.sin(out)), out

    def run(backend):
        return jax.jit(jax.value_and_grad(functools.partial(loss, backend), (0, 1, 2), has_aux=True))(*arrays)

    with where:
        ((_, splash), grads) = run("splash")
    ((_, plain), expected) = run("xla")
    return (splash, grads), (plain, expected)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.mark.parametrize("case", CASES)
def test_splash_is_plain_attention_with_its_gradients(case):
    assert_close(*both(draw(), CASES[case], on_mesh()))


def test_splash_takes_any_lengths_and_sizes():
    arrays = draw(length=64, memory=200, kv_heads=1, value_dim=16)
    assert_close(*both(arrays, {"causal": True}, on_mesh()))


@pytest.mark.parametrize(("length", "size"), [(1, 128), (257, 384), (577, 384), (1024, 512), (1370, 512), (1025, 384)])
def test_blocks_are_few_and_no_larger_than_need_be(length, size):
    assert flash.block(length) == size


@pytest.mark.parametrize(
    ("case", "shape", "preset"),
    [
        ("causal segments", {"tensor": 4}, "tensor"),  # heads stay whole: there are 2 key heads
        ("padding, nothing kept", {"data": 2, "tensor": 2}, "tensor"),
        ("causal and padded in front", {"data": 2, "sequence": 4}, "sequence"),  # 130 queries are filled up
    ],
)
def test_splash_on_shards_is_plain_attention(case, shape, preset):
    assert_close(*both(draw(), CASES[case], on_mesh(shape, preset)))


def test_sequence_parallel_attention_gathers_keys_and_values_once():
    shape = {"data": 2, "sequence": 4}
    arrays = draw(length=256, memory=256, kv_heads=4)
    grid = mesh.make(shape, preset="sequence")
    cut = jax.sharding.NamedSharding(grid, jax.sharding.PartitionSpec("data", "sequence"))
    for backend in ("splash", "xla"):
        with axes.placed(Tpu(grid, "sequence")):
            run = jax.jit(
                functools.partial(kernels.attend, backend=backend), in_shardings=(cut,) * 3, out_shardings=cut
            )
            text = run.lower(*arrays).compile().as_text()
        gathers = [line for line in text.splitlines() if " all-gather(" in line]
        assert 1 <= len(gathers) <= 2, backend
        assert not any(word in text for word in (" all-to-all(", " all-reduce(", " collective-permute(")), backend


def test_a_short_sequence_keeps_the_kernel_away():
    with on_mesh():
        text = str(jax.make_jaxpr(lambda *a: kernels.attend(*a))(*draw()))
    assert "pallas" not in text
    with on_mesh():
        text = str(jax.make_jaxpr(lambda *a: kernels.attend(*a))(*draw(length=1024, memory=1024)))
    assert "pallas_call" in text
