"""Attention in pieces: the numbers of attention at once, without the weights of all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.nn import masks, plain


def draw(length=11, memory=9, heads=4, kv_heads=2):
    rng = np.random.default_rng(0)
    shapes = (2, length, heads, 8), (2, memory, kv_heads, 8), (2, memory, kv_heads, 8)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("kind", ["none", "last", "padding", "segments"])
def test_pieces_are_the_whole_with_its_gradients(kind, monkeypatch):
    monkeypatch.setattr(plain, "PIECE", 3)
    arrays = draw()
    given = {
        "none": {},
        "last": {"last": jnp.clip(jnp.arange(11) - 2, 0)},
        "padding": {"mask": masks.expand(masks.padding(jnp.array([4, 9]), 9))},
        "segments": {"segments": masks.Segments(jnp.arange(22).reshape(2, 11) // 4, jnp.arange(18).reshape(2, 9) // 4)},
    }[kind]
    kept = masks.allowed(given.get("mask"), given.get("segments"), given.get("last"), 9)
    whole = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(plain.attend(*a, kept))), (0, 1, 2)))(*arrays)
    pieces = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(plain.in_pieces(*a, **given))), (0, 1, 2)))(*arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), pieces, whole)


def test_pieces_need_less_memory():
    def peak(function):
        x = jax.ShapeDtypeStruct((1, 4096, 2, 8), jnp.float32)
        grad = jax.jit(jax.grad(lambda q, k, v: jnp.sum(function(q, k, v)), (0, 1, 2)))
        return grad.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert peak(plain.in_pieces) < 0.5 * peak(lambda q, k, v: plain.attend(q, k, v, None))
