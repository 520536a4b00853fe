import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.metrics import classification

RNG = np.random.default_rng(0)


def test_top_k_agrees_with_sorting():
    logits, labels = jnp.asarray(RNG.normal(size=(50, 10)), jnp.float32), jnp.asarray(RNG.integers(0, 10, 50))
    order = np.argsort(-logits, axis=1)
    for k in (1, 3, 5):
        expected = (order[:, :k] == labels[:, None]).any(axis=1)
        np.testing.assert_array_equal(classification.top_k_correct(logits, labels, k=k), expected)


def test_a_tie_goes_to_the_lower_index_as_in_argmax():
    logits = jnp.zeros((3, 4))
    np.testing.assert_array_equal(classification.top_k_correct(logits, jnp.array([0, 1, 3])), [True, False, False])


def test_nan_is_never_right():
    assert not classification.top_k_correct(jnp.full((1, 4), jnp.nan), jnp.array([0])).any()


def test_masked_examples_do_not_count():
    logits, labels = jax.nn.one_hot(jnp.arange(8) % 7, 7), jnp.arange(8) % 7
    mask = jnp.arange(8) < 5
    found = classification.counts(logits, labels, jnp.full((8,), jnp.nan).at[:5].set(2.0), mask)
    assert (int(found["count"]), int(found["top1"]), int(found["top5"]), float(found["loss"])) == (5, 5, 5, 10.0)


def test_top5_needs_more_than_five_classes():
    found = classification.counts(jnp.zeros((2, 5)), jnp.zeros(2, int), jnp.zeros(2), jnp.ones(2, bool))
    assert set(found) == {"count", "loss", "top1"}
