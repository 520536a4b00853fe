"""The same experiment gives the same numbers however it is spread, and wherever the optimizer's state waits."""

import contextlib
import functools

import jax
import numpy as np
import pytest

from tests.experiment import small
from transformer_jax import axes, paths, types
from transformer_jax.experiment import program as programs
from transformer_jax.training import checkpoint
from transformer_jax.training import state as clocks

# Not Adam: it makes as much of a gradient that is zero but for rounding, a key's bias has one, as of any other.
STILL = dict(
    optim__name="sgd",
    model__dropout="0.0",
    model__stochastic_depth="0.0",
    train__mixup="0.0",
    train__cutmix="0.0",
)


@functools.cache
def program(**changes):
    settings = small.tiny(**STILL, model__num_classes="10", **changes)
    return programs.Program(settings, (-1.0, 1.0))


@functools.cache
def trained(**changes):
    """(losses, parameters, how often the step was compiled) of three steps, nothing moved implicitly."""
    spread = program(**changes)
    state, losses = spread.init(jax.random.key(0)), []
    for number in range(3):
        with jax.transfer_guard("disallow"):
            batch = {name: np.roll(array, number, axis=0) for name, array in spread.fake_batch(16).items()}
            state, metrics = spread.step(state, spread.strategy.put(batch), spread.strategy.scalar(1e-2))
        losses.append(float(metrics["loss"]))
    logits = np.asarray(spread.predict(state.params, spread.strategy.put(spread.fake_batch(16))))
    return losses, paths.flatten(jax.device_get(state.params)), logits, spread.step._cache_size()


@pytest.mark.parametrize(
    "changes",
    [
        dict(parallel__strategy="pmap"),
        dict(parallel__strategy="pmap", train__accumulate="2"),
        dict(parallel__offload="optimizer"),
    ],
    ids=["pmap", "pmap accumulating", "offloaded"],
)
def test_numbers_do_not_depend_on_how_a_run_is_spread(changes):
    losses, params, logits, compiled = trained(**changes)
    expected, expected_params, expected_logits, _ = trained()
    np.testing.assert_allclose(losses, expected, atol=1e-6)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    for path, leaf in expected_params.items():
        np.testing.assert_allclose(params[path], leaf, atol=2e-6, err_msg=path)
    assert compiled == 1 and len(set(losses)) == 3


def test_an_offloaded_state_waits_in_the_memory_of_the_host():
    state = program(parallel__offload="optimizer").init(jax.random.key(0))
    kinds = {path: leaf.sharding.memory_kind for path, leaf in paths.flatten(state.optimizer).items()}
    assert set(kinds.values()) == {"pinned_host"}
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.params)} == {"device"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(parallel__rules="fsdp"), "spreads examples and nothing else: parallel.rules is 'fsdp'"),
        (dict(parallel__mesh="{'data': 4, 'fsdp': 2}"), "nothing else: the mesh has fsdp"),
    ],
)
def test_pmap_is_data_parallel_only(changes, message):
    with pytest.raises(types.InputError, match=message):
        program(parallel__strategy="pmap", **changes)


def test_a_checkpoint_does_not_depend_on_offload_or_strategy(tmp_path):
    offloaded, mapped = program(parallel__offload="optimizer"), program(parallel__strategy="pmap")
    state = offloaded.init(jax.random.key(0))
    stacks = offloaded.model.stacks
    with contextlib.closing(checkpoint.Checkpointer(tmp_path, stacks=stacks)) as saver:
        saver.save(state, clocks.Clock(step=3, examples=48))
    with contextlib.closing(checkpoint.Checkpointer(tmp_path, stacks=stacks)) as reader:
        for other in (mapped, offloaded):
            restored, _, _ = reader.restore(other.abstract)
            assert jax.tree.map(lambda leaf: leaf.sharding, restored) == other.shardings
            jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_flops_are_those_of_the_model_whatever_hardware_is_traced_for():
    made = program(model__image_size="128", data__preprocess="'resize(128) | value_range(-1, 1)'")  # 1,025 tokens
    alone = made.flops("train", 8)
    with axes.placed(axes.Alone(axes.Hardware("tpu", "TPU v5 lite"))):
        assert made.flops("train", 8) == alone
