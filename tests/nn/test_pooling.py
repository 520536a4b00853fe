"""From tokens to one vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax.nn import pooling

BUILD = {
    "tok": lambda: pooling.Token(),
    "gap": lambda: pooling.Mean(prefix=2),
    "map": lambda: pooling.AttentionPool(8, 2, hidden=16, rngs=nnx.Rngs(0)),
}


def tokens():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 8)), jnp.float32)


def test_every_pool_is_under_contract():
    assert set(BUILD) == set(pooling.POOLS)


@pytest.mark.parametrize("name", BUILD)
def test_a_pool_gives_one_vector_an_example_whatever_the_order_of_the_patches(name):
    pool, x = BUILD[name](), tokens()
    assert pool(x).shape == (3, 8)
    np.testing.assert_allclose(pool(x), pool(x[:, np.array([0, 1, 5, 3, 4, 2])]), atol=1e-6)


def test_tok_takes_the_first_token_and_gap_the_mean_after_the_prefix():
    x = tokens()
    np.testing.assert_array_equal(BUILD["tok"]()(x), x[:, 0])
    np.testing.assert_allclose(BUILD["gap"]()(x), np.asarray(x)[:, 2:].mean(axis=1), atol=1e-6)


def test_the_probe_of_map_learns():
    pool = BUILD["map"]()
    graph, params, rest = nnx.split(pool, nnx.Param, ...)
    grads = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(nnx.merge(graph, params, rest, copy=True)(tokens())))))(
        params
    )
    assert float(jnp.abs(grads["probe"][...]).max()) > 1e-4


def test_two_class_tokens_are_pooled_to_their_mean():
    np.testing.assert_allclose(pooling.Token(count=2)(tokens()), tokens()[:, :2].mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(pooling.Token()(tokens()), tokens()[:, 0])


@pytest.mark.parametrize("pool", [pooling.Token(), pooling.Token(count=2), pooling.Mean(prefix=2)])
def test_the_weights_of_a_mean_make_the_pooled_vector_of_the_tokens(pool):
    x = tokens()
    weights = pool.weights(x)
    assert weights.shape == (3, 1, 6)
    np.testing.assert_allclose(jnp.einsum("bl,bld->bd", weights[:, 0], x), pool(x), atol=1e-6)


def test_the_weights_of_map_are_a_row_a_head_and_pool_the_values():
    pool, x = BUILD["map"](), tokens()
    weights, attention = pool.weights(x), pool.attention
    assert weights.shape == (3, 2, 6)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    pooled = attention.out(jnp.einsum("bhl,blhd->bhd", weights, attention.value(x))[:, None])[:, 0]
    np.testing.assert_allclose(pooled + pool.mlp(pool.norm(pooled[:, None]))[:, 0], pool(x), atol=1e-5)
