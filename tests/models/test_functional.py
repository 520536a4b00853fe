"""The bridge to plain JAX: dictionaries in, arrays out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import axes, paths, types
from transformer_jax.models import functional, vit

TINY = dict(variant=None, width=8, depth=2, heads=2, mlp_dim=16, patch=4, image_size=8, num_classes=5, head_zero=False)


def image():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)


def test_init_and_apply_are_those_of_the_module():
    model = functional.from_family("vit", **TINY)
    module = vit.ViT(vit.Config(**TINY), rngs=nnx.Rngs(params=jax.random.key(3), dropout=0))
    params = jax.jit(model.init)(jax.random.key(3))
    for path, leaf in paths.flatten(nnx.to_pure_dict(nnx.state(module, nnx.Param))).items():
        np.testing.assert_allclose(paths.flatten(params)[path], leaf, rtol=1e-6)
    expected = nnx.view(module, deterministic=True)(image())
    np.testing.assert_allclose(jax.jit(model.apply)(params, image()), expected, atol=1e-6)


def test_parameters_are_plain_nested_dictionaries_of_the_announced_shapes():
    model = functional.from_family("vit", **TINY)
    params = jax.jit(model.init)(jax.random.key(0))
    assert type(params) is dict and type(params["blocks"]["mlp"]["up"]) is dict
    shapes = paths.flatten(model.abstract)
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in paths.flatten(params).items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in shapes.items()
    }
    assert model.stacks == {"blocks": 2}
    neutral = paths.unstack(shapes, model.stacks, take=lambda leaf, i: leaf.shape[1:])
    assert neutral["blocks/1/attention/query/kernel"] == (8, 2, 4)


def test_raw_key_numbers_serve_as_a_key():
    model = functional.from_family("vit", **TINY, dropout=0.5)
    key = jax.random.key(1)
    init, train = jax.jit(model.init), jax.jit(lambda params, key: model.apply(params, image(), key=key))
    params = init(key)
    jax.tree.map(np.testing.assert_array_equal, params, init(jax.random.key_data(key)))
    np.testing.assert_array_equal(train(params, key), train(params, jax.random.key_data(key)))


def test_scanned_and_unrolled_models_share_parameters_and_gradients():
    def gradient(**how):
        model = functional.from_family("vit", **TINY, dropout=0.2, stochastic_depth=0.2, **how)
        params = jax.jit(model.init)(jax.random.key(0))
        return jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, image(), key=jax.random.key(1)) ** 2)))(params)

    pairs = gradient(), gradient(scan=False, remat="full")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *pairs)


def test_apply_leaves_nothing_behind_when_traced():
    model = functional.from_family("vit", **TINY, dropout=0.2)
    params = jax.jit(model.init)(jax.random.key(0))
    step = jax.jit(lambda p, key: model.apply(p, image(), key=key))
    step(params, jax.random.key(1))
    step(params, jax.random.key(2))
    assert step._cache_size() == 1
    assert np.isfinite(model.apply(params, image())).all()  # no leaked tracer in the module


def test_activations_are_pinned_by_the_rule_in_force():
    model, seen = functional.from_family("vit", **TINY), set()

    class Recorder:
        hardware, examples_only = axes.Hardware("cpu", "cpu"), True

        def constrain(self, x, names):
            seen.add(names)
            assert len(names) == x.ndim
            return x

        def on_shards(self, function, inputs, output):
            return function

    with axes.placed(Recorder()):
        jax.eval_shape(model.apply, model.abstract, image())
    assert ("batch", "length", "embed") in seen and ("batch", "length", "mlp") in seen
    assert ("batch", "length", "heads", "head_dim") in seen


def test_parameters_of_another_model_are_refused_by_path():
    model = functional.from_family("vit", **TINY)
    params = functional.from_family("vit", **TINY, pool="gap", pre_logits=4).abstract
    with pytest.raises(
        types.InputError, match=r"missing \['cls'\], unknown \['pre_logits/bias', 'pre_logits/kernel'\]"
    ):
        jax.eval_shape(model.apply, params, image())


def test_an_unknown_family_names_the_near_one():
    with pytest.raises(
        types.InputError, match="The model must be one of vit, resnet: it is 'vitt'. Did you mean 'vit'"
    ):
        functional.from_family("vitt")
