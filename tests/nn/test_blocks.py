"""Residual blocks: one shared contract, then the equation of each."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax.nn import attention, blocks, masks, mlp, norms

CONTRACT = ("pre", "post", "parallel")


def build(name, seed=0, norm="layernorm", scale=None, dropout=0.0):
    rngs = nnx.Rngs(params=seed, dropout=1)
    mixer = attention.MultiHeadAttention(8, 2, dropout=dropout, rngs=rngs)
    feed = mlp.MLP(8, 16, dropout=dropout, rngs=rngs)
    layer_scale = None if scale is None else functools.partial(blocks.LayerScale, 8, initial=scale)
    return blocks.BLOCKS[name](mixer, feed, norm=functools.partial(norms.NORMS[norm], 8), scale=layer_scale, rngs=rngs)


def tokens(batch=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, 5, 8)), jnp.float32)


def test_every_block_is_under_contract():
    assert set(CONTRACT) == set(blocks.BLOCKS)


@pytest.mark.parametrize("name", CONTRACT)
@pytest.mark.parametrize("norm", norms.NORMS)
def test_a_block_is_its_equation(name, norm):
    block, x = build(name, norm=norm), tokens()
    if name == "pre":
        between = x + block.attention(block.norm1(x))
        expected = between + block.mlp(block.norm2(between))
    elif name == "post":
        between = block.norm1(x + block.attention(x))
        expected = block.norm2(between + block.mlp(between))
    else:
        expected = x + block.attention(block.norm1(x)) + block.mlp(block.norm1(x))
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_block_obeys_its_mask(name):
    block, x = build(name), tokens()
    later = x.at[:, 3:].multiply(-2.0)
    causal = masks.causal(5)
    np.testing.assert_allclose(block(x, mask=causal)[:, :3], block(later, mask=causal)[:, :3], atol=1e-6)
    assert float(jnp.abs(block(x)[:, :3] - block(later)[:, :3]).max()) > 1e-3


@pytest.mark.parametrize("name", ["pre", "parallel"])
def test_layer_scale_of_zero_leaves_the_stream_alone(name):
    np.testing.assert_array_equal(build(name, scale=0.0)(tokens()), tokens())


@pytest.mark.parametrize("name", ["pre", "parallel"])
def test_stochastic_depth_drops_each_branch_of_an_example_whole(name):
    block, x = build(name), jnp.broadcast_to(tokens(1), (400, 5, 8))
    out = np.asarray(block(x, drop_rate=0.5))
    kinds = np.unique(np.round(out[:, 0, 0], 4))
    assert len(kinds) == 4  # both branches, either, none
    untouched = (out == np.asarray(x)).all(axis=(1, 2)).mean()
    assert abs(untouched - 0.25) < 0.08


@pytest.mark.parametrize("name", CONTRACT)
def test_evaluation_ignores_dropout_and_depth(name):
    block = nnx.view(build(name, dropout=0.5), deterministic=True)
    np.testing.assert_allclose(block(tokens(), drop_rate=0.5), build(name)(tokens()), atol=1e-6)


def test_the_parallel_block_has_one_norm():
    assert not hasattr(build("parallel"), "norm2")
