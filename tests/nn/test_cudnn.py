"""What is done around cuDNN, with XLA in its place: there is no GPU here, so its own numbers are not tested."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.nn import cudnn, masks, plain

KINDS = {
    "none": {},
    "square": {"square": True, "last": jnp.arange(7)},
    "causal": {"last": jnp.arange(7)},
    "padding": {"mask": masks.expand(masks.padding(jnp.array([3, 7]), 7))},
    "full": {"mask": jnp.tril(jnp.ones((1, 4, 7, 7), bool))},
    "segments": {"segments": masks.Segments(*(jnp.arange(14).reshape(2, 7) // 3,) * 2)},
}


def draw(length=7, memory=7, kv_heads=4):
    rng = np.random.default_rng(0)
    shapes = (2, length, 4, 8), (2, memory, kv_heads, 8), (2, memory, kv_heads, 8)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_an_odd_length_changes_no_number(kind):
    given, arrays = KINDS[kind], draw(kv_heads=2)
    kept = masks.allowed(given.get("mask"), given.get("segments"), given.get("last"), 7)
    padded = functools.partial(cudnn.attend, **given, implementation="xla")
    one, other = (
        jax.jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2)))(*arrays)
        for f in (padded, lambda *a: plain.attend(*a, kept))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.fixture
def seen(monkeypatch):
    calls = []

    def record(query, key, value, **given):
        calls.append(given | {"lengths": (query.shape[1], key.shape[1])})
        return jnp.zeros(query.shape, query.dtype)

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    return calls


@pytest.mark.parametrize(
    ("length", "memory", "filled"), [(7, 7, (8, 8)), (1, 7, (2, 8)), (6, 7, (6, 8)), (6, 4, (6, 4))]
)
def test_cudnn_is_given_even_lengths_where_it_is_differentiated(seen, length, memory, filled):
    arrays = draw(length, memory)
    assert cudnn.attend(*arrays, mask=jnp.ones((2, 1, 1, memory), bool)).shape == arrays[0].shape
    assert seen[0]["implementation"] == "cudnn" and seen[0]["lengths"] == filled
    assert seen[0]["mask"].shape == (2, 1, *filled), "cuDNN wants masks of full lengths"
    told = [seen[0].get(name) for name in ("query_seq_lengths", "key_value_seq_lengths")]
    if filled == (length, memory):
        assert told == [None, None]
    else:
        assert [x.tolist() for x in told] == [[length] * 2, [memory] * 2]


def test_odd_lengths_stay_where_no_gradient_is_asked_for(seen):
    cudnn.attend(*draw(), differentiated=False)
    assert seen[0]["lengths"] == (7, 7) and "query_seq_lengths" not in seen[0]


def test_a_square_causal_mask_needs_no_array(seen):
    cudnn.attend(*draw(), last=jnp.arange(7), square=True)
    assert seen[0]["is_causal"] and seen[0]["mask"] is None
