"""The step: accumulation, averaging, and numbers that are not finite."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.training import state as states
from transformer_jax.training import step as steps

from . import small_run


def no_dropout(params, batch, key):
    return small_run.loss_fn(params, batch, key, dropout=0.0)


def batch(position=0, **changes):
    made = next(small_run.batches(position))
    return {name: jnp.asarray(value) for name, value in made.items() if name != "_id"} | changes


def noise(params, batch, key):
    return jax.random.uniform(key) + 0 * params["head"]["bias"].sum(), {}


@functools.cache
def compiled(loss, **options):
    return jax.jit(steps.make_train_step(loss, small_run.optimizer(), **({"average_decay": 0.9} | options)))


def taken(state, *, loss=no_dropout, data=None, rate=0.1, **options):
    return compiled(loss, **options)(state, data or batch(), jnp.float32(rate))


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_gives_the_step_of_the_full_batch(accumulate):
    state = small_run.fresh()
    whole, told = taken(state)
    parts, told_parts = taken(state, accumulate=accumulate)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), parts, whole)
    assert told.keys() == told_parts.keys()
    for name in told:
        np.testing.assert_allclose(told_parts[name], told[name], rtol=2e-5, atol=1e-6)
    assert int(parts.step) == 1


def test_accumulation_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(types.InputError, match="8 examples do not make 3 equal parts"):
        taken(small_run.fresh(), accumulate=3)


def test_parts_of_a_batch_get_different_randomness():
    _, one = taken(small_run.fresh(), loss=noise)
    _, two = taken(small_run.fresh(), loss=noise, accumulate=2)
    assert abs(float(one["loss"]) - float(two["loss"])) > 1e-3


def test_every_step_gets_its_own_randomness_from_the_same_key():
    state, first = taken(small_run.fresh(), loss=noise)
    state, second = taken(state, loss=noise)
    assert float(first["loss"]) != float(second["loss"])
    np.testing.assert_array_equal(state.key, small_run.fresh().key)


def test_the_average_follows_the_parameters():
    state = small_run.fresh()
    after, _ = taken(state)
    expected = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, state.average, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.average, expected)


def test_without_an_average_none_is_kept():
    after, _ = taken(small_run.fresh(average=False), average_decay=None)
    assert after.average is None


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_not_finite_changes_nothing_but_the_clock(policy, accumulate):
    state, told = taken(small_run.fresh(), nonfinite=policy)
    assert float(told[steps.FLAGS[policy]]) == 0.0
    bad = batch(image=batch()["image"].at[3, 2].set(jnp.nan))
    after, told = taken(state, data=bad, nonfinite=policy, accumulate=accumulate)
    assert float(told[steps.FLAGS[policy]]) == 1.0
    assert int(after.step) == int(state.step) + 1
    jax.tree.map(
        np.testing.assert_array_equal,
        (after.params, after.optimizer, after.average),
        (state.params, state.optimizer, state.average),
    )


def test_an_infinite_learning_rate_is_met_before_it_reaches_the_parameters():
    after, told = taken(small_run.fresh(), rate=np.inf)
    assert float(told["stop"]) == 1.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_a_step_whose_update_overflows_is_flagged_and_leaves_only_numbers():
    after, told = taken(small_run.fresh(), rate=np.float32(3.4e38))
    assert float(told["stop"]) == 1.0 and not np.isfinite(told["update_norm"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.params, after.optimizer, after.average)))


def test_an_unknown_policy_is_refused():
    with pytest.raises(types.InputError, match="nonfinite must be one of"):
        steps.make_train_step(no_dropout, small_run.optimizer(), nonfinite="ignore")


def test_the_step_can_be_read_aloud():
    source = inspect.getsource(steps.make_train_step)
    body = source[source.index("    def train_step") : source.index("    return train_step")]
    assert len(body.strip().splitlines()) < 40


def test_a_new_state_may_be_donated_at_once():
    state = small_run.fresh()
    for _ in range(2):
        state, _ = small_run.train_step()(state, batch(), jnp.float32(0.1))
    assert int(state.step) == 2


def test_a_state_is_flattened_to_plain_paths_and_back():
    state = small_run.fresh()
    flat = states.flatten(state)
    assert {"step", "key", "params/blocks/mlp/kernel", "average/head/bias", "optimizer/0/mu/head/bias"} <= flat.keys()
    again = states.unflatten(flat, state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)
