"""Optimizers against optax and the papers; one meaning of weight decay; frozen parameters stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer_jax import paths, types
from transformer_jax.optim import averaging, optimizers

LAYERS = 3
STACKS = {"blocks": LAYERS}
SHAPES = {
    "embedding/kernel": (4, 8),
    "embedding/bias": (8,),
    "blocks/mlp/kernel": (LAYERS, 8, 6),
    "blocks/mlp/bias": (LAYERS, 6),
    "head/kernel": (6, 5),
}
NAMES = sorted(optimizers.OPTIMIZERS)


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return paths.unflatten({p: jnp.asarray(scale * rng.normal(size=s), jnp.float32) for p, s in SHAPES.items()})


def run(optimizer, params, *, steps=4, rates=(0.1, 0.05, 0.2, 0.1), scale=1.0):
    update = jax.jit(lambda g, s, p, lr: optimizer.update(g, s, p, learning_rate=lr))
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = update(tree(100 + step, scale), state, params, jnp.float32(rates[step]))
        params = optax.apply_updates(params, updates)
    return params, state


def run_optax(make, params, *, steps=4, rates=(0.1, 0.05, 0.2, 0.1), scale=1.0):
    state = make(1.0).init(params)
    for step in range(steps):
        updates, state = make(rates[step]).update(tree(100 + step, scale), state, params)
        params = optax.apply_updates(params, updates)
    return params


def close(a, b, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


KERNEL_MASK = paths.unflatten({p: p.endswith("kernel") for p in SHAPES})


def test_the_list_below_names_every_optimizer():
    assert NAMES == ["adafactor", "adam", "adamw", "sgd"]


def test_adamw_with_clipping_is_that_of_optax():
    ours = optimizers.build("adamw", tree(0), weight_decay=0.3, clip_norm=0.5)
    theirs = lambda lr: optax.chain(  # noqa: E731  (a chain reads better than a def)
        optax.clip_by_global_norm(0.5), optax.adamw(lr, weight_decay=0.3, mask=KERNEL_MASK)
    )
    close(run(ours, tree(0))[0], run_optax(theirs, tree(0)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_optax(nesterov):
    ours = optimizers.build("sgd", tree(0), momentum=0.9, nesterov=nesterov, clip_norm=None)
    close(run(ours, tree(0))[0], run_optax(lambda lr: sgd_after_trace(lr, nesterov), tree(0)))


def sgd_after_trace(rate, nesterov):
    return optax.chain(optax.trace(0.9, nesterov=nesterov), optax.scale(-rate))


def test_sgd_without_momentum_keeps_nothing():
    optimizer = optimizers.build("sgd", tree(0), momentum=0.0, clip_norm=None)
    assert list(optimizer.init(tree(0))) == ["count"]


@pytest.mark.parametrize("clip_update", [None, 0.7])
def test_adafactor_is_that_of_big_vision(clip_update):
    """Its chain, put together from the parts of optax that it uses; layers unstacked, since optax knows no stacks."""
    options = {"min_size": 4, "clip_update": clip_update, "clip_norm": None, "weight_decay": 0.1}
    ours = optimizers.build("adafactor", tree(0), stacks=STACKS, moment_dtype="float32", **options)

    def theirs(rate):
        return optax.chain(
            optax.scale_by_factored_rms(
                min_dim_size_to_factor=4,
                decay_rate_fn=lambda i, p: jnp.minimum(0.999, 1.0 - (jnp.float32(i) + 1.0) ** -p),
            ),
            optax.clip_by_block_rms(clip_update) if clip_update else optax.identity(),
            optax.ema(0.9, debias=False),
            optax.add_decayed_weights(0.1, mask=lambda p: {k: k.endswith("kernel") for k in p}),
            optax.scale(-rate),
        )

    def apart(params):
        return paths.unstack(paths.flatten(params), STACKS)

    params = apart(tree(0))
    state = theirs(1.0).init(params)
    for step, rate in enumerate((0.1, 0.05, 0.2, 0.1)):
        updates, state = theirs(rate).update(apart(tree(100 + step)), state, params)
        params = optax.apply_updates(params, updates)
    close(apart(run(ours, tree(0))[0]), params, rtol=1e-4)


def test_adafactor_keeps_rows_and_columns_of_every_layer_and_a_small_first_moment():
    optimizer = optimizers.build("adafactor", tree(0), stacks=STACKS, min_size=5)
    state = paths.flatten(optimizer.init(tree(0)))
    shapes = {path: leaf.shape for path, leaf in state.items()}
    assert shapes["row/blocks/mlp/kernel"] == (LAYERS, 6)
    assert shapes["column/blocks/mlp/kernel"] == (LAYERS, 8)
    assert shapes["nu/embedding/kernel"] == (4, 8)
    assert "row/embedding/kernel" not in shapes
    assert state["mu/blocks/mlp/kernel"].dtype == jnp.bfloat16
    assert all(leaf.shape[0] == LAYERS for path, leaf in state.items() if "blocks" in path)


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_is_trained_as_its_layers_would_be_alone(name):
    options = {"weight_decay": 0.1, "clip_norm": None}
    if name == "adafactor":
        options |= {"min_size": 4, "clip_update": 0.5}
    stacked, _ = run(optimizers.build(name, tree(0), stacks=STACKS, **options), tree(0))
    for layer in range(LAYERS):

        def alone(params, layer=layer):
            return jax.tree.map(lambda x: x[layer], params["blocks"])

        optimizer = optimizers.build(name, alone(tree(0)), **options)
        params, state = alone(tree(0)), optimizer.init(alone(tree(0)))
        for step, rate in enumerate((0.1, 0.05, 0.2, 0.1)):
            updates, state = optimizer.update(alone(tree(100 + step)), state, params, learning_rate=jnp.float32(rate))
            params = optax.apply_updates(params, updates)
        close(params, alone(stacked))


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_by_the_learning_rate_times_it(name):
    """The trap of vit_protocol.md 2.1: a zero gradient leaves nothing but the decay."""
    params = tree(0)
    optimizer = optimizers.build(name, params, weight_decay=0.3)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params, learning_rate=jnp.float32(0.01))
    after = optax.apply_updates(params, updates)
    for path, before in paths.flatten(params).items():
        shrink = 1 - 0.01 * 0.3 if path.endswith("kernel") else 1.0
        np.testing.assert_allclose(paths.flatten(after)[path], shrink * before, rtol=1e-6)


def test_weight_decay_of_big_vision_is_ours_times_the_base_rate():
    """ViT on ImageNet-1k: 0.3 in the paper at rate 3e-3 is big_vision's 9e-4, applied after the base rate but before
    the schedule's factor."""
    base, ours, theirs, factor = 3e-3, 0.3, 9e-4, 0.42
    params = tree(0)
    optimizer = optimizers.build("adam", params, weight_decay=ours, clip_norm=None)
    updates, _ = optimizer.update(tree(1), optimizer.init(params), params, learning_rate=jnp.float32(base * factor))
    chain = optax.chain(
        optax.scale_by_adam(),
        optax.scale(base),
        optax.add_decayed_weights(theirs, mask=KERNEL_MASK),
        optax.scale(factor),
        optax.scale(-1.0),
    )
    close(updates, chain.update(tree(1), chain.init(params), params)[0], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_keep_every_bit_and_no_buffers(name):
    params = tree(0)
    params["embedding"]["bias"] = params["embedding"]["bias"].at[0].set(-0.0)
    optimizer = optimizers.build(name, params, freeze=["embedding/.*", "blocks/.*"], stacks=STACKS, weight_decay=0.5)
    after, state = run(optimizer, params, steps=3)
    for path, before in paths.flatten(params).items():
        same = np.asarray(before).tobytes() == np.asarray(paths.flatten(after)[path]).tobytes()
        assert same == (not path.startswith("head"))
    assert all(path == "count" or path.endswith("head/kernel") for path in paths.flatten(state))


def test_the_gradient_of_frozen_parameters_does_not_count_for_clipping():
    params, grads = tree(0), tree(1)
    grads["blocks"] = jax.tree.map(lambda x: 1e6 * x, grads["blocks"])
    optimizer = optimizers.build("sgd", params, freeze=["blocks/.*"], stacks=STACKS, clip_norm=1e3, momentum=0.0)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, learning_rate=jnp.float32(1.0))
    np.testing.assert_allclose(updates["head"]["kernel"], -grads["head"]["kernel"])


def test_clipping_bounds_the_norm_of_all_gradients_together():
    params = tree(0)
    optimizer = optimizers.build("sgd", params, clip_norm=0.5, momentum=0.0)
    updates, _ = optimizer.update(tree(1), optimizer.init(params), params, learning_rate=jnp.float32(1.0))
    assert float(optax.global_norm(updates)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_is_not_finite_reaches_the_updates(name):
    """The step decides by them, so clipping must not hide one."""
    params, grads = tree(0), tree(1)
    grads["head"]["kernel"] = grads["head"]["kernel"].at[0, 0].set(jnp.inf)
    optimizer = optimizers.build(name, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, learning_rate=jnp.float32(1.0))
    assert not np.isfinite(optax.global_norm(updates))


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_multipliers_may_differ_by_layer_and_scale_the_decay_too(name):
    params = tree(0)
    rules = [("head/.*", 0.5), ("blocks/0/.*", 0.0), ("blocks/2/.*", 2)]
    options = {"weight_decay": 0.1, "stacks": STACKS}
    plain, changed = (
        optimizer.update(tree(1), optimizer.init(params), params, learning_rate=jnp.float32(0.1))[0]
        for optimizer in (optimizers.build(name, params, **options, multipliers=m) for m in ((), rules))
    )
    np.testing.assert_allclose(changed["head"]["kernel"], 0.5 * plain["head"]["kernel"], rtol=1e-6)
    factors = np.array([0.0, 1.0, 2.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(
        changed["blocks"]["mlp"]["kernel"], factors * plain["blocks"]["mlp"]["kernel"], rtol=1e-6
    )
    np.testing.assert_array_equal(changed["embedding"]["bias"], plain["embedding"]["bias"])


def test_the_rate_is_an_argument_and_compiles_nothing_anew():
    traces = []
    params = tree(0)
    optimizer = optimizers.build("adamw", params)

    @jax.jit
    def update(rate):
        traces.append(rate)
        return optimizer.update(tree(1), optimizer.init(params), params, learning_rate=rate)[0]

    first, second = update(jnp.float32(0.1)), update(jnp.float32(0.2))
    assert len(traces) == 1
    close(jax.tree.map(lambda x: 2 * x, first), second)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adafactor"])
def test_a_moment_in_bfloat16_is_kept_so_and_leads_the_same_way(name):
    wide, _ = run(optimizers.build(name, tree(0), moment_dtype="float32"), tree(0))
    narrow, state = run(optimizers.build(name, tree(0), moment_dtype="bfloat16"), tree(0))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state["mu"]))
    close(wide, narrow, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_keeps_its_structure_and_dtypes(name):
    optimizer = optimizers.build(name, tree(0), stacks=STACKS)
    before, (_, after) = optimizer.init(tree(0)), run(optimizer, tree(0))
    jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) or pytest.fail("changed"), before, after)
    assert int(after["count"]) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "adamm"}, "Did you mean 'adam"),
        ({"weight_deca": 0.1}, "Did you mean 'weight_decay'"),
        ({"weight_decay": -0.1}, "at least 0"),
        ({"clip_norm": 0.0}, "None for no clipping"),
        ({"b1": 1.0}, "b1 must be at least 0 and below 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(wrong, message):
    with pytest.raises(types.InputError, match=message):
        optimizers.build(**{"name": "adamw", "abstract_params": tree(0), **wrong})


def test_polyak_follows_slowly():
    average = averaging.polyak({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, 0.9)
    np.testing.assert_allclose(average["a"], 0.9)
    assert averaging.polyak({"a": jnp.float32(3)}, {"a": jnp.float32(3)}, 0.999)["a"] == 3
