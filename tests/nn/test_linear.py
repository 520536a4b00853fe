"""Dense layers, in either layout of their input."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax.nn import lean, linear


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [((6,), (5,)), ((6,), (2, 4)), ((2, 3), (5,)), ((2, 3), (2, 4))])
def test_a_dense_layer_is_the_tensor_product_in_both_layouts(flat, inputs, outputs, monkeypatch):
    monkeypatch.setattr(lean, "wanted", lambda: flat)
    names = ("embed",) * len(inputs) + ("mlp",) * len(outputs)
    layer = linear.Dense(inputs, outputs, axes=names, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(float(layer.bias.size)).reshape(outputs)
    x = np.random.default_rng(0).normal(size=(2, 3, *inputs)).astype(np.float32)
    expected = np.tensordot(x, np.asarray(layer.kernel[...]), axes=len(inputs)) + np.asarray(layer.bias[...])
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=2e-6)


def test_the_fan_in_of_a_kernel_counts_all_its_inputs():
    layer = linear.Dense((8, 64), (512,), axes=("heads", "head_dim", "embed"), rngs=nnx.Rngs(0))
    assert abs(float(jnp.std(layer.kernel[...])) - 512**-0.5) < 1e-3


def test_compute_and_storage_have_their_own_dtypes():
    layer = linear.Dense((4,), (3,), axes=("embed", "mlp"), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert layer.kernel.dtype == jnp.float32
    assert layer(jnp.ones((2, 4))).dtype == jnp.bfloat16
