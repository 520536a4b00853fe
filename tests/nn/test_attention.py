"""Multi-head attention as a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import types
from transformer_jax.nn import attention, masks


def layer(width=16, heads=4, **options):
    return attention.MultiHeadAttention(width, heads, rngs=nnx.Rngs(params=0, dropout=1), **options)


def tokens(length=6, width=16, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, length, width)), jnp.float32)


def flax_twin(ours, width=16, heads=4, memory_width=16):
    """flax's own layer with the same weights."""
    twin = nnx.MultiHeadAttention(
        heads, width, in_kv_features=memory_width, decode=False, deterministic=True, rngs=nnx.Rngs(0)
    )
    for name in ("query", "key", "value", "out"):
        getattr(twin, name).kernel[...] = getattr(ours, name).kernel[...]
        bias = jnp.asarray(np.random.default_rng(3).normal(size=getattr(ours, name).bias.shape), jnp.float32)
        getattr(twin, name).bias[...] = bias
        getattr(ours, name).bias[...] = bias
    return twin


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_is_that_of_flax(masked):
    ours, x = layer(), tokens()
    mask = masks.expand(masks.causal(6)) if masked else None
    twin = flax_twin(ours)
    np.testing.assert_allclose(ours(x, mask=mask), twin(x, mask=mask), atol=5e-6)


def test_cross_attention_is_that_of_flax():
    ours, x, memory = layer(memory_width=12), tokens(), tokens(9, 12, seed=1)
    twin = flax_twin(ours, memory_width=12)
    np.testing.assert_allclose(ours(x, memory), twin(x, memory, memory), atol=5e-6)


def test_grouped_queries_are_full_heads_with_repeated_keys_and_values():
    grouped, full, x = layer(kv_heads=2), layer(), tokens()
    for name in ("query", "out"):
        getattr(full, name).kernel[...] = getattr(grouped, name).kernel[...]
    for name in ("key", "value"):
        getattr(full, name).kernel[...] = jnp.repeat(getattr(grouped, name).kernel[...], 2, axis=1)
    np.testing.assert_allclose(grouped(x), full(x), atol=2e-6)


def test_values_and_outputs_may_have_their_own_sizes():
    mixed = layer(head_dim=6, value_dim=3, out_width=5)
    assert mixed.out.kernel.shape == (4, 3, 5)
    assert mixed(tokens()).shape == (2, 6, 5)
    assert mixed.value.kernel.get_metadata()["axes"] == ("embed", "heads", "value_dim")


def test_future_tokens_get_no_gradient():
    causal, x = layer(), tokens()[:1]
    jacobian = jax.jacobian(lambda x: causal(x, mask=masks.causal(6)))(x)[0, :, :, 0]  # (to, feature, from, feature)
    strength = np.abs(jacobian).sum(axis=(1, 3))
    assert (strength[np.triu_indices(6, k=1)] == 0).all()
    assert (strength[np.tril_indices(6)] > 0).all()


def test_permuted_tokens_give_permuted_outputs():
    mixer, x = layer(), tokens()
    order = np.random.default_rng(1).permutation(6)
    np.testing.assert_allclose(mixer(x)[:, order], mixer(x[:, order]), atol=2e-6)


def test_query_key_norm_bounds_the_logits_however_large_the_weights():
    normed, x = layer(qk_norm=True), tokens()
    before = normed(x)
    normed.query.kernel[...] = 1000.0 * normed.query.kernel[...]
    np.testing.assert_allclose(normed(x), before, atol=1e-4)
    assert normed.query_norm.bias is None


def test_dropout_acts_on_the_output_in_training_only():
    mixer, x = layer(dropout=0.5), tokens(64)
    dropped = np.asarray(mixer(x) == 0.0).mean()
    assert abs(dropped - 0.5) < 0.05
    still = nnx.view(mixer, deterministic=True)
    np.testing.assert_array_equal(still(x), still(x))
    np.testing.assert_allclose(still(x), layer()(x), atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused_with_a_remedy():
    with pytest.raises(types.InputError, match="width 16 and 5 heads leave 1. Take 4 heads"):
        layer(heads=5)


def test_key_heads_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(types.InputError, match="4 heads and 3 key heads"):
        layer(kv_heads=3)


def test_an_unknown_back_end_is_refused_when_the_layer_is_built():
    with pytest.raises(types.InputError, match="it is 'flash'"):
        layer(backend="flash")


@pytest.mark.parametrize("options", [{}, dict(qk_norm=True, kv_heads=2)], ids=["plain", "grouped"])
def test_the_weights_of_attention_mix_its_values_into_its_output(options):
    ours, x = layer(**options), tokens()
    mask = masks.causal(6)
    weights = ours.weights(x, mask=mask)
    assert weights.shape == (2, 4, 6, 6) and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(axis=-1), np.ones((2, 4, 6)), atol=1e-6)
    assert not np.triu(weights, k=1).any()
    value = ours.value(x)
    value = jnp.repeat(value, 4 // value.shape[2], axis=2)
    mixed = ours.out(jnp.einsum("bhqk,bkhv->bqhv", weights, value))
    np.testing.assert_allclose(mixed, nnx.view(ours, deterministic=True)(x, mask=mask), atol=2e-6)


def test_the_weights_of_bfloat16_attention_are_float32():
    assert layer(dtype=jnp.bfloat16).weights(tokens()).dtype == jnp.float32
