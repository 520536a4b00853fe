"""Standardised convolutions and pooling, against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import convolution, lean

RNG = np.random.default_rng(0)
SIDES = {"same": lambda n, k, s: _split(max((-(-n // s) - 1) * s + k - n, 0)), "fixed": lambda n, k, s: _split(k - 1)}


def _split(total):
    return total // 2, total - total // 2


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def windows(x, size, stride, padding, outside):
    """Every window of an image, in float64: [batch, rows, columns, size, size, channels]."""
    sides = [SIDES[padding](n, size, stride) for n in x.shape[1:3]]
    x = np.pad(np.float64(x), ((0, 0), *sides, (0, 0)), constant_values=outside)
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    cut = [
        [x[:, i * stride : i * stride + size, j * stride : j * stride + size] for j in range(columns)]
        for i in range(rows)
    ]
    return np.stack([np.stack(row, axis=1) for row in cut], axis=1)


def standardised(kernel, epsilon, of):
    kernel = np.float64(kernel) - np.float64(kernel).mean(axis=(0, 1, 2))
    if of == "std":
        return kernel / (kernel.std(axis=(0, 1, 2)) + epsilon)
    return kernel / np.sqrt(kernel.var(axis=(0, 1, 2)) + epsilon)


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_a_convolution_is_the_sum_over_every_window_of_the_standardised_filter(size, stride, shape, padding):
    layer = convolution.StdConv(3, 4, size=size, stride=stride, padding=padding, rngs=nnx.Rngs(0))
    x, kernel = numbers(2, *shape, 3), numbers(size, size, 3, 4)
    layer.kernel[...] = jnp.asarray(kernel)
    expected = np.einsum("bijxyc,xyco->bijo", windows(x, size, stride, padding, 0.0), standardised(kernel, 1e-5, "std"))
    np.testing.assert_allclose(jax.jit(layer)(jnp.asarray(x)), expected, atol=1e-4)


def test_the_two_paddings_agree_but_for_an_even_side_at_stride_two():
    kernel = jnp.asarray(numbers(3, 3, 2, 4))
    for length, stride, equal in [(8, 1, True), (7, 2, True), (8, 2, False)]:
        x = jnp.asarray(numbers(1, length, length, 2))
        same, fixed = (convolution.convolve(x, kernel, stride=stride, padding=p) for p in convolution.PADDINGS)
        assert same.shape == fixed.shape
        assert (float(jnp.abs(same - fixed).max()) < 1e-6) == equal


@pytest.mark.parametrize("of", convolution.EPSILONS)
def test_the_epsilon_stands_where_it_is_said_to(of):
    kernel = 0.05 * numbers(3, 3, 2, 4)
    got = convolution.standardise(jnp.asarray(kernel), epsilon=1e-2, of=of)
    np.testing.assert_allclose(got, standardised(kernel, 1e-2, of), rtol=1e-4, atol=1e-6)
    other = "std" if of == "variance" else "variance"
    assert np.abs(got - standardised(kernel, 1e-2, other)).max() > 0.1


@pytest.mark.parametrize("of", convolution.EPSILONS)
def test_a_constant_filter_becomes_zeros_with_a_finite_gradient(of):
    def total(kernel):
        return jnp.sum(jnp.sin(convolution.standardise(kernel, epsilon=1e-5, of=of)))

    kernel = jnp.ones((1, 1, 1, 4))
    np.testing.assert_array_equal(convolution.standardise(kernel, epsilon=1e-5, of=of), np.zeros((1, 1, 1, 4)))
    assert np.isfinite(jax.grad(total)(kernel)).all()


def test_statistics_of_a_bfloat16_convolution_are_float32():
    layer = convolution.StdConv(2, 4, size=3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    jaxpr = jax.make_jaxpr(layer)(jnp.zeros((1, 4, 4, 2)))
    assert all(e.outvars[0].aval.dtype == jnp.float32 for e in jaxpr.jaxpr.eqns if e.primitive.name == "reduce_sum")
    assert jaxpr.out_avals[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("formula", [True, False], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
def test_pooling_takes_the_maximum_of_every_window(shape, padding, formula, monkeypatch):
    monkeypatch.setattr(lean, "wanted", lambda: formula)
    x = numbers(2, *shape, 3)
    expected = windows(x, 3, 2, padding, 0.0 if padding == "fixed" else -np.inf).max(axis=(3, 4))
    got = convolution.max_pool(jnp.asarray(x), padding=padding)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_the_gradient_of_pooling_is_the_same_on_every_device(monkeypatch):
    x, gradients = jnp.asarray(numbers(2, 8, 6, 3)), []
    for formula in (True, False):
        monkeypatch.setattr(lean, "wanted", lambda formula=formula: formula)
        gradients.append(jax.grad(lambda x: jnp.sum(jnp.sin(convolution.max_pool(x))))(x))
    np.testing.assert_allclose(*gradients, atol=1e-6)
    assert float(jnp.abs(gradients[0]).max()) > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(padding="valid"), "The padding must be one of same, fixed: it is 'valid'"),
        (dict(epsilon_of="varience"), "epsilon_of must be one of std, variance: .* Did you mean 'variance'"),
    ],
)
def test_an_unknown_word_is_refused(options, message):
    with pytest.raises(types.InputError, match=message):
        convolution.StdConv(3, 4, rngs=nnx.Rngs(0), **options)
