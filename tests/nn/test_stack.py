"""A stack scanned, unrolled and rematerialised is one function with one gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import attention, blocks, masks, mlp, norms, stack

WAYS = ((False, None), (False, "full"), (True, "dots"), (True, "dots_no_batch"))  # scan, remat
DEPTH = 2


def tokens():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)


def make(dropout=0.0):
    return stack.make(lambda rngs: block(rngs, dropout), DEPTH, rngs=nnx.Rngs(params=0, dropout=1))


def block(rngs, dropout=0.0):
    mixer = attention.MultiHeadAttention(8, 2, dropout=dropout, rngs=rngs)
    feed = mlp.MLP(8, 16, dropout=dropout, rngs=rngs)
    return blocks.PreNorm(mixer, feed, norm=functools.partial(norms.LayerNorm, 8), rngs=rngs)


@functools.cache
def value_and_gradient(scan, remat, dropout=0.3):
    graph, params, rest = nnx.split(make(dropout), nnx.Param, ...)

    def loss(params, x):
        module = nnx.merge(graph, params, rest, copy=True)
        y = stack.run(module, x, stochastic_depth=dropout, mask=masks.causal(5), scan=scan, remat=remat)
        return jnp.sum(jnp.sin(y)), y

    grads, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, tokens())
    return y, grads


@pytest.mark.parametrize(("scan", "remat"), WAYS)
def test_every_way_to_run_gives_the_same_outputs_and_gradients_dropout_included(scan, remat):
    plain, got = value_and_gradient(True, None), value_and_gradient(scan, remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, plain)


def test_every_policy_is_among_the_ways():
    assert set(stack.REMAT) < {remat for _, remat in WAYS}


def test_a_stack_is_its_blocks_in_order():
    module, x = make(), tokens()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    y = x
    for i in range(DEPTH):
        y = nnx.merge(graph, *jax.tree.map(lambda leaf, i=i: leaf[i], (params, rest)), copy=True)(y)
    np.testing.assert_allclose(stack.run(module, x), y, atol=1e-5)


def test_layers_start_differently_and_carry_their_axis():
    module = make()
    kernel = module.mlp.up.kernel
    assert kernel.shape == (DEPTH, 8, 16)
    assert kernel.get_metadata()["axes"] == ("layers", "embed", "mlp")
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0.1
    assert stack.depth(module) == DEPTH and stack.depth(block(nnx.Rngs(0))) == 0


@pytest.mark.parametrize("scan", [True, False])
def test_two_runs_draw_different_noise(scan):
    module, x = make(dropout=0.5), tokens()
    assert (stack.run(module, x, scan=scan) != stack.run(module, x, scan=scan)).any()


def test_layers_draw_different_noise():
    module = make(dropout=0.5)
    keys = np.asarray(jax.random.key_data(module.mlp.dropout_up.rngs.key[...]))
    assert len({tuple(key) for key in keys}) == DEPTH


def test_drop_rates_grow_from_zero_to_the_last():
    np.testing.assert_allclose(stack.drop_rates(0.2, 5), [0.0, 0.05, 0.1, 0.15, 0.2], atol=1e-7)
    assert stack.drop_rates(0.0, 5) is None


def test_the_gradient_of_unstack_is_one_concatenation():
    text = str(jax.make_jaxpr(jax.grad(lambda x: sum(jnp.sum(i * p**2) for i, p in enumerate(stack.unstack(x, 4)))))(
        jnp.ones((4, 3))
    ))  # fmt: skip
    assert text.count("concatenate") == 1
    assert "pad" not in text and "scatter" not in text


def test_an_unknown_policy_names_the_near_one():
    with pytest.raises(types.InputError, match="remat must be one of full, dots, dots_no_batch: it is 'dot'. Did you"):
        stack.run(make(), tokens(), remat="dot")


@pytest.mark.parametrize("scan", [True, False])
def test_reading_sees_every_block_with_its_own_input(scan):
    module = make()
    inputs = stack.read(module, tokens(), lambda block, x: x, scan=scan)
    assert inputs.shape == (DEPTH, 2, 5, 8)
    np.testing.assert_array_equal(inputs[0], tokens())
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    second = nnx.merge(graph, *(jax.tree.map(lambda leaf: leaf[0], part) for part in (params, rest)))
    np.testing.assert_allclose(inputs[1], second(tokens()), atol=1e-5)
