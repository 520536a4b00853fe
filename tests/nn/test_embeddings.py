"""Patch embedding: the strided convolution of the published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import embeddings


@pytest.mark.parametrize("patch", [(4, 4), (2, 3)])
def test_the_embedding_and_its_gradient_are_those_of_the_strided_convolution(patch):
    layer = embeddings.PatchEmbedding(5, patch, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(5.0)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)), jnp.float32)

    def convolution(image, kernel):
        out = jax.lax.conv_general_dilated(image, kernel, patch, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return out.reshape(2, -1, 5) + layer.bias[...].reshape(1, 1, 5)

    def ours(image, kernel):
        graph, state = nnx.split(layer)
        module = nnx.merge(graph, state, copy=True)
        module.kernel[...] = kernel
        return module(image)

    kernel = layer.kernel[...]
    np.testing.assert_allclose(ours(image, kernel), convolution(image, kernel), atol=5e-6)
    gradients = [jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1))(image, kernel) for f in (ours, convolution)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *gradients)


def test_patches_come_in_reading_order():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        embeddings.patches(image, (2, 2))[0], [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    )


@pytest.mark.parametrize("size", [(225, 224), (224, 230), (8, 224)])
def test_a_patch_that_does_not_divide_the_image_is_refused_with_a_remedy(size):
    rule = rf"image {size[0]}x{size[1]}, patch 16x16. Resize the images to \d+x224"
    with pytest.raises(types.InputError, match=rule):
        embeddings.grid(size, (16, 16))
