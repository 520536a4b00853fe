"""One tiny regression, trained on every mesh: same losses, parameters where the rules say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from transformer_jax import axes, types
from transformer_jax.parallel import mesh, rules, strategies

AXES = {"up/kernel": ("embed", "mlp"), "up/bias": ("mlp",), "blocks/down/kernel": ("layers", "mlp", "embed")}
SHAPES = {"up/kernel": (4, 16), "up/bias": (16,), "blocks/down/kernel": (8, 16, 4)}


def init(key):
    keys = jax.random.split(key, len(SHAPES))
    flat = {p: jax.random.normal(k, s) * 0.1 for k, (p, s) in zip(keys, SHAPES.items(), strict=True)}
    params = {
        "up": {"kernel": flat["up/kernel"], "bias": flat["up/bias"]},
        "blocks": {"down": {"kernel": flat["blocks/down/kernel"]}},
    }
    return {"params": params, "mu": jax.tree.map(jnp.zeros_like, params), "step": jnp.zeros((), jnp.int32)}


def step(state, batch, rate):
    def loss(params):
        hidden = jnp.tanh(batch["x"] @ params["up"]["kernel"] + params["up"]["bias"][None])
        hidden = axes.constrain(hidden, "batch", "mlp")
        return jnp.mean((hidden @ params["blocks"]["down"]["kernel"].sum(0) - batch["x"]) ** 2)

    value, grads = jax.value_and_grad(loss)(state["params"])
    mu = jax.tree.map(lambda m, g: 0.9 * m + g, state["mu"], grads)
    params = jax.tree.map(lambda p, m: p - rate * m, state["params"], mu)
    return {"params": params, "mu": mu, "step": state["step"] + 1}, value


def train(shape, preset, devices=None):
    made = mesh.make(shape, devices)
    strategy = strategies.Jit(made)
    shardings = rules.shardings(jax.eval_shape(init, jax.random.key(0)), AXES, made, preset)
    state = strategy.compile(init, outputs=shardings)(jax.random.key(0))
    inputs = (shardings, strategy.batch, strategy.replicated)
    compiled = strategy.compile(step, inputs=inputs, outputs=(shardings, strategy.replicated), donate=(0,))
    losses = []
    for i in range(4):
        x = np.random.default_rng(i).normal(size=(16, 4)).astype(np.float32)
        state, loss = compiled(state, strategy.put({"x": x}), strategy.scalar(0.1))
        losses.append(float(loss))
    return state, losses


def test_every_mesh_gives_the_same_losses():
    _, reference = train({"data": 1}, "data", jax.devices()[:1])
    for shape, preset in [({"data": 8}, "data"), ({"data": 1, "fsdp": 8}, "fsdp"), ({"data": 2, "fsdp": 4}, "fsdp")]:
        np.testing.assert_allclose(train(shape, preset)[1], reference, rtol=1e-6)


def test_fsdp_splits_the_largest_axis_that_divides_and_never_the_layers():
    made = mesh.make({"data": 2, "fsdp": 4})
    spec = {p: rules.parameter_spec(AXES[p], SHAPES[p], made, "fsdp") for p in AXES}
    assert spec["up/kernel"] == PartitionSpec(None, "fsdp")
    assert spec["up/bias"] == PartitionSpec("fsdp")
    assert spec["blocks/down/kernel"] == PartitionSpec(None, "fsdp")
    assert rules.parameter_spec(("classes",), (10,), made, "fsdp") == PartitionSpec()


def test_the_state_is_born_sharded_and_optimizer_leaves_lie_where_their_parameter_does():
    state, _ = train({"data": 1, "fsdp": 8}, "fsdp")
    for tree in (state["params"], state["mu"]):
        assert tree["up"]["kernel"].addressable_shards[0].data.shape == (4, 2)
        assert tree["blocks"]["down"]["kernel"].addressable_shards[0].data.shape == (8, 2, 4)
    assert state["step"].sharding.is_fully_replicated


def test_under_the_data_preset_every_device_holds_everything():
    state, _ = train({"data": 8}, "data")
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


def test_a_batch_that_does_not_divide_names_sizes_that_do():
    strategy = strategies.Jit(mesh.make({"data": 4, "fsdp": 2}))
    strategy.check_batch(16)
    with pytest.raises(types.InputError, match="12 examples over 8 devices. Take 8 or 16"):
        strategy.check_batch(12)


def test_an_unknown_preset_is_named():
    with pytest.raises(types.InputError, match="must be one of data, fsdp: not 'fdsp'. Did you mean 'fsdp'"):
        rules.parameter_spec(("embed",), (4,), mesh.make({"data": -1}), "fdsp")
