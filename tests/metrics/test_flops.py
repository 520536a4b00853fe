import functools

import jax
import jax.numpy as jnp
import pytest

from transformer_jax.metrics import flops

X = jnp.ones((3, 4, 5))
W = jnp.ones((5, 7))


def counted(function, *args):
    return flops.count(jax.make_jaxpr(function)(*args))


def test_a_product_counts_two_for_each_multiply_add():
    assert counted(lambda x, w: x @ w, X, W) == 2 * 3 * 4 * 5 * 7
    assert counted(lambda x: jnp.einsum("bqe,bke->bqk", x, x), X) == 2 * 3 * 4 * 4 * 5


def test_the_backward_pass_costs_twice_the_forward_pass():
    def loss(x, w):
        return (x @ w).sum()

    assert counted(jax.grad(loss, argnums=(0, 1)), X, W) == 3 * counted(loss, X, W)


def test_a_scan_counts_every_turn_and_jit_and_remat_are_looked_into():
    w = jnp.ones((5, 5))

    def body(x, _):
        return jax.jit(jax.checkpoint(lambda y: y @ w))(x), None

    assert counted(lambda x: jax.lax.scan(body, x, length=6)[0], X) == 6 * 2 * 12 * 25


def test_a_convolution_counts_like_the_product_it_is():
    image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 16))
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(4, 4), padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert counted(convolve, image, kernel) == 2 * (2 * 2 * 2) * 16 * (4 * 4 * 3)


def test_a_function_with_its_own_gradient_counts_once():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T, jnp.einsum("bqd,bqe->de", res[0], g)))
    assert counted(product, X, W) == 2 * 12 * 35


def test_an_unknown_device_has_no_peak_and_no_utilisation():
    assert flops.peak("cpu") is None
    assert flops.utilisation(1e12, 1.0, ["cpu"]) is None
    assert flops.utilisation(1e12, 1.0, ["TPU v4", "TPU v4"]) == pytest.approx(1 / 550)
    assert flops.peak("TPU v5 lite") == 197e12 and flops.peak("NVIDIA H200") == 989e12
