"""The same numbers on every mesh, from a state that was never whole anywhere."""

import functools

import jax
import numpy as np
import optax
import pytest

from transformer_jax import axes as words
from transformer_jax import paths, types
from transformer_jax.metrics import losses
from transformer_jax.optim import optimizers
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import rules, strategies

LAYERS, WIDTH, CLASSES, BATCH = 2, 64, 10, 16
AXES = {
    "blocks/up/kernel": ("layers", "embed", "mlp"),
    "blocks/down/kernel": ("layers", "mlp", "embed"),
    "head/kernel": ("embed", "classes"),
    "head/bias": ("classes",),
}
SHAPES = {
    "blocks/up/kernel": (LAYERS, WIDTH, 2 * WIDTH),
    "blocks/down/kernel": (LAYERS, 2 * WIDTH, WIDTH),
    "head/kernel": (WIDTH, CLASSES),
    "head/bias": (CLASSES,),
}
MESHES = {
    "1 device": ({"data": 1}, 1, "data"),
    "data 8": ({"data": 8}, 8, "data"),
    "fsdp 8": ({"fsdp": 8}, 8, "fsdp"),
    "2x4": ({"data": 2, "fsdp": 4}, 8, "fsdp"),
}


def init_params(key):
    keys = jax.random.split(key, len(SHAPES))
    return paths.unflatten(
        {path: 0.1 * jax.random.normal(k, shape) for k, (path, shape) in zip(keys, SHAPES.items(), strict=True)}
    )


def apply(params, x):
    def block(x, params):
        hidden = words.constrain(jax.nn.gelu(x @ params["up"]["kernel"]), "batch", "mlp")
        return words.constrain(x + hidden @ params["down"]["kernel"], "batch", "embed"), None

    x, _ = jax.lax.scan(block, x, params["blocks"])
    return x @ params["head"]["kernel"] + params["head"]["bias"][None]


@functools.cache
def program(mesh, name="adamw"):
    """(strategy, init, step) of a small encoder, compiled once for all tests."""
    shape, devices, preset = MESHES[mesh]
    strategy = strategies.Jit(meshes.make(shape, jax.devices()[:devices]))
    abstract = jax.eval_shape(init_params, jax.random.key(0))
    optimizer = optimizers.build(name, abstract, stacks={"blocks": LAYERS}, weight_decay=0.1)

    def init(key):
        params = init_params(key)
        return {"params": params, "optimizer": optimizer.init(params)}

    def step(state, batch, learning_rate):
        def loss(params):
            return losses.mean(losses.softmax_cross_entropy(apply(params, batch["x"]), batch["label"]))

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, after = optimizer.update(grads, state["optimizer"], state["params"], learning_rate=learning_rate)
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": after}, value

    where = rules.shardings(jax.eval_shape(init, jax.random.key(0)), AXES, strategy.mesh, preset)
    here, everywhere = strategy.batch, strategy.replicated
    compiled = strategy.compile(step, inputs=(where, here, everywhere), outputs=(where, everywhere), donate=(0,))
    return strategy, strategy.compile(init, outputs=where), compiled


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "x": rng.normal(size=(BATCH, WIDTH)).astype(np.float32),
            "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
        }


@functools.cache
def train(mesh, name="adamw"):
    strategy, init, step = program(mesh, name)
    state, history = init(jax.random.key(0)), []
    for batch in batches(5):
        state, loss = step(state, strategy.put(batch), strategy.scalar(0.01))
        history.append(float(loss))
    return history


@pytest.mark.parametrize(("name", "mesh"), [*(("adamw", mesh) for mesh in MESHES), ("adafactor", "2x4")])
def test_losses_are_the_same_on_every_mesh(name, mesh):
    alone, sharded = train("1 device", name), train(mesh, name)
    assert len(set(alone)) == len(alone)
    np.testing.assert_allclose(sharded, alone, atol=1e-6)


@pytest.mark.parametrize("mesh", MESHES)
def test_the_state_is_born_where_it_lives_with_the_same_numbers(mesh):
    strategy, init, _ = program(mesh)
    state = init(jax.random.key(0))
    kernel = state["params"]["blocks"]["up"]["kernel"]
    parts = strategy.mesh.shape["fsdp"] if MESHES[mesh][2] == "fsdp" else 1
    for leaf in (kernel, state["optimizer"]["mu"]["blocks"]["up"]["kernel"]):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(LAYERS, WIDTH, 2 * WIDTH // parts)}
    alone = program("1 device")[1](jax.random.key(0))
    np.testing.assert_array_equal(kernel, alone["params"]["blocks"]["up"]["kernel"])


def test_initialising_a_sharded_state_holds_no_whole_parameter():
    """The compiled program writes only shards: its results are an eighth of the state on each device."""
    _, init, _ = program("fsdp 8")
    one, eight = (
        make.lower(jax.random.key(0)).compile().memory_analysis().output_size_in_bytes
        for make in (program("1 device")[1], init)
    )
    assert eight < one / 6


@pytest.mark.parametrize("mesh", MESHES)
def test_the_step_gives_the_state_back_where_it_was_and_takes_the_old_one(mesh):
    strategy, init, step = program(mesh)
    before = init(jax.random.key(0))
    places = jax.tree.map(lambda leaf: leaf.sharding, before)
    after, _ = step(before, strategy.put(next(batches(1))), strategy.scalar(0.01))
    assert jax.tree.map(lambda leaf: leaf.sharding, after) == places
    assert before["params"]["blocks"]["up"]["kernel"].is_deleted()


def test_parameters_spread_over_fsdp_are_gathered_and_those_under_data_are_not():
    def text(mesh):
        strategy, init, step = program(mesh)
        lowered = step.lower(init(jax.random.key(0)), strategy.put(next(batches(1))), strategy.scalar(0.01))
        return lowered.compile().as_text()

    assert "all-gather" in text("fsdp 8")
    assert "all-gather" not in text("data 8") and "all-reduce" in text("data 8")
    assert "all-reduce" not in text("1 device")


def test_batches_and_scalars_pass_a_transfer_guard():
    strategy, init, step = program("2x4")
    state = init(jax.random.key(0))
    with jax.transfer_guard("disallow"):
        for batch, rate in zip(batches(2), (0.1, 0.2), strict=True):
            state, loss = step(state, strategy.put(batch), strategy.scalar(rate))
    assert np.isfinite(loss)


def test_another_rate_compiles_nothing():
    strategy, init, step = program("data 8")
    state = init(jax.random.key(0))
    state, _ = step(state, strategy.put(next(batches(1))), strategy.scalar(0.1))
    before = step._cache_size()
    for rate, batch in zip((0.2, 0.3), batches(2), strict=True):
        state, _ = step(state, strategy.put(batch), strategy.scalar(rate))
    assert step._cache_size() == before


def test_a_batch_is_spread_over_both_axes():
    strategy = strategies.Jit(meshes.make({"data": 2, "fsdp": 4}))
    array = strategy.put({"x": np.arange(16.0)})["x"]
    assert {shard.data.shape for shard in array.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(array, np.arange(16.0))


def test_a_batch_that_does_not_divide_says_what_would():
    strategy = strategies.Jit(meshes.make({"data": 8}))
    with pytest.raises(types.InputError, match="8 or 16 would"):
        strategy.put({"x": np.zeros(12)})
