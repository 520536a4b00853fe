"""The units of the ResNets, against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax.nn import convolution, norms, residual

CONV = functools.partial(convolution.StdConv, padding="same")
NORM = functools.partial(norms.GroupNorm, groups=2)
UNITS = {"post": residual.PostActivation, "pre": residual.PreActivation}


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def unit(kind, inputs=8, width=4, **options):
    made = UNITS[kind](inputs, width, conv=CONV, norm=NORM, rngs=nnx.Rngs(0), **options)
    for number in "123":
        scale = getattr(made, f"norm{number}").scale
        scale[...] = jnp.linspace(0.5, 1.5, scale.shape[0])
    return made


def body(units=(2, 1), kind="post", **options):
    root = functools.partial(residual.Root, conv=CONV, norm=NORM if kind == "post" else None)
    parts = functools.partial(UNITS[kind], conv=CONV, norm=NORM)
    return residual.Body(3, 4, units=units, root=root, unit=parts, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("stride", [1, 2])
def test_post_activation_ends_in_a_relu_of_both_branches(stride):
    u, x = unit("post", stride=stride), numbers(2, 6, 6, 8)
    relu = jax.nn.relu
    y = u.norm3(u.conv3(relu(u.norm2(u.conv2(relu(u.norm1(u.conv1(x))))))))
    np.testing.assert_allclose(u(x), relu(u.norm_proj(u.conv_proj(x)) + y), atol=1e-6)
    assert u(x).shape == (2, 6 // stride, 6 // stride, 16)


@pytest.mark.parametrize("stride", [1, 2])
def test_pre_activation_projects_what_the_first_relu_gives(stride):
    u, x = unit("pre", stride=stride), numbers(2, 6, 6, 8)
    relu = jax.nn.relu
    first = relu(u.norm1(x))
    y = u.conv3(relu(u.norm3(u.conv2(relu(u.norm2(u.conv1(first)))))))
    np.testing.assert_allclose(u(x), u.conv_proj(first) + y, atol=1e-6)


@pytest.mark.parametrize("kind", UNITS)
def test_a_unit_that_keeps_the_shape_keeps_its_input(kind):
    u = unit(kind, inputs=16)
    assert u.conv_proj is None
    u.conv3.kernel[...] = jnp.zeros_like(u.conv3.kernel[...])
    x = jax.nn.relu(numbers(2, 4, 4, 16))
    np.testing.assert_allclose(u(x), x, atol=1e-6)  # what is left is the skip connection


def test_a_new_post_activation_unit_is_its_skip_connection():
    u = residual.PostActivation(16, 4, conv=CONV, norm=NORM, rngs=nnx.Rngs(0))
    x = jax.nn.relu(numbers(2, 4, 4, 16))
    np.testing.assert_array_equal(u(x), x)


@pytest.mark.parametrize(("units", "length"), [((), 21), ((1,), 24), ((1, 1, 1), 50)])
def test_the_side_of_the_map_is_known_beforehand(units, length):
    made = body(units)
    out = jax.eval_shape(made, numbers(1, length, length, 3))
    side = residual.map_side(length, len(units))
    assert out.shape == (1, side, side, made.outputs)
    assert made.outputs == (4 if not units else 16 << (len(units) - 1))


@pytest.mark.parametrize("kind", UNITS)
def test_blocks_and_units_have_the_published_names(kind):
    names = {"/".join(path[:-2]) for path in nnx.to_flat_state(nnx.state(body(kind=kind), nnx.Param)).paths}
    assert {name for name in names if name} == {"root", "block1/unit1", "block1/unit2", "block2/unit1"}


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialised_units_have_the_same_gradient(remat):
    def gradient(module):
        graph, params = nnx.split(module)
        loss = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(nnx.merge(graph, p)(numbers(1, 8, 8, 3))))))
        return nnx.to_pure_dict(loss(params))

    pair = gradient(body((1,), kind="pre")), gradient(body((1,), kind="pre", remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *pair)
