import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.training import mixing


def test_images_and_targets_are_mixed_with_one_weight_of_at_least_a_half():
    image = jnp.arange(4.0)[:, None, None, None] * jnp.ones((1, 2, 2, 1))
    target = jnp.eye(4)
    for seed in range(20):
        mixed, labels = mixing.mixup(image, target, jax.random.key(seed), alpha=0.2)
        weight = np.diag(labels)
        np.testing.assert_allclose(weight, weight[0])
        assert 0.5 <= weight[0] <= 1.0
        np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(mixed[1, 0, 0, 0], weight[0] * 1 + (1 - weight[0]) * 0, rtol=1e-6)


def test_a_large_alpha_mixes_halves_and_a_small_one_hardly_mixes():
    image, target = jnp.ones((2, 1, 1, 1)), jnp.eye(2)

    def mean_weight(alpha):
        keys = jax.random.split(jax.random.key(0), 200)
        return float(jax.vmap(lambda k: mixing.mixup(image, target, k, alpha=alpha)[1][0, 0])(keys).mean())

    assert mean_weight(100.0) < 0.56 and mean_weight(0.01) > 0.97
