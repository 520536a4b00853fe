"""The Vision Transformer: its options, its parameters, its errors."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import axes, models, paths, types
from transformer_jax.models import functional, vit, vit_variants

from .test_golden import GOLDEN, maker

COUNTS = json.loads((GOLDEN / "vit_parameters.json").read_text())
TIMM = json.loads((GOLDEN / "parameters_timm.json").read_text())["vit"]
TINY, OPTIONS = maker.TINY, maker.OPTIONS


def build(**options):
    return functional.from_family("vit", **(TINY | {"head_zero": False} | options))


def init(model):
    """Weights without a compiled program."""
    return maker.weights(model.abstract)


def images(size=(8, 12), batch=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, *size, 3)), jnp.float32)


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant", COUNTS["with_head"])
def test_parameter_counts_are_the_published_ones(variant):
    shapes = functional.from_family("vit", variant=variant).abstract
    assert count(shapes) == COUNTS["with_head"][variant]
    assert count(shapes) - count(shapes["head"]) == COUNTS["backbone"].get(
        variant, count(shapes) - count(shapes["head"])
    )


@pytest.mark.parametrize("name", TIMM)
def test_parameter_counts_of_the_largest_are_those_of_timm(name):
    variant, pool = name.split()
    assert count(functional.from_family("vit", variant=variant, pool=pool).abstract) == TIMM[name]


@pytest.mark.parametrize("name", vit_variants.VARIANTS)
def test_every_row_of_the_table_is_a_model_of_its_sizes(name):
    patch = 14 if name in ("So400m", "H", "g", "G") else 16
    shapes = paths.flatten(functional.from_family("vit", variant=f"{name}/{patch}", pool="gap").abstract)
    size = vit_variants.VARIANTS[name]
    assert shapes["blocks/attention/query/kernel"].shape == (
        size.depth, size.width, size.heads, size.width // size.heads,
    )  # fmt: skip
    assert shapes["blocks/mlp/up/kernel"].shape == (size.depth, size.width, size.mlp_dim)
    assert shapes["embedding/kernel"].shape == (patch, patch, 3, size.width)


def test_numbers_given_replace_those_of_the_variant():
    config = vit.Config(variant="B/16", depth=3, patch=8)
    assert config.size == vit_variants.Size(768, 3, 12, 3072)
    assert config.patch_size == (8, 8) and config.grid == (28, 28)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_every_parameter(name):
    model = build(**OPTIONS[name])
    params = init(model)
    labels = jnp.eye(5)[jnp.array([1, 3])]

    def loss(params):
        logits = model.apply(params, images(), key=jax.random.key(1))
        return -jnp.sum(labels * jax.nn.log_softmax(logits)), logits

    grads, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert logits.shape == (2, 5) and logits.dtype == jnp.float32
    for path, grad in paths.flatten(grads).items():
        assert np.isfinite(grad).all(), path
        if not path.endswith("key/bias"):
            assert float(jnp.abs(grad).max()) > 0.0, path


@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_carries_words_of_the_vocabulary(name):
    model = build(**OPTIONS[name])
    shapes = paths.flatten(model.abstract)
    assert set(model.axes) == set(shapes)
    for path, words in model.axes.items():
        assert len(words) == len(shapes[path].shape) and set(words) <= axes.WORDS, path
        assert (words[0] == "layers") == path.startswith("blocks/"), path


def test_features_are_what_the_head_sees():
    model = build(pre_logits=7)
    params = init(model)
    features = jax.jit(lambda p: model.apply(p, images(), method="features"))(params)
    assert features.shape == (2, 7) and float(jnp.abs(features).max()) <= 1.0
    logits = features @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(jax.jit(model.apply)(params, images()), logits, atol=1e-6)


def test_the_head_starts_at_zero_with_its_bias():
    model = build(head_zero=True, head_bias=-10.0)
    np.testing.assert_array_equal(
        jax.jit(model.apply)(jax.jit(model.init)(jax.random.key(0)), images()), np.full((2, 5), -10.0)
    )


def test_without_position_the_order_of_the_patches_does_not_matter():
    image = images()
    flipped = image.reshape(2, 2, 4, 3, 4, 3)[:, ::-1, :, ::-1].reshape(image.shape)
    for position in ("none", "learned"):
        model = build(position=position)
        params = init(model)
        apply = jax.jit(model.apply)
        gap = float(jnp.abs(apply(params, image) - apply(params, flipped)).max())
        assert (gap < 1e-5) == (position == "none"), position


def test_registers_have_no_position_and_are_not_pooled():
    plain, more = build(pool="gap"), build(pool="gap", registers=2)
    params = init(more)
    assert params["position"].shape == (6, 16) and params["registers"].shape == (2, 16)
    tokens = jax.eval_shape(lambda p: more.apply(p, images(), method="tokens"), params)
    assert tokens.shape == (2, 8, 16)
    with_noise = jax.jit(more.apply)(params, images())
    del params["registers"]
    assert float(jnp.abs(with_noise - jax.jit(plain.apply)(params, images())).max()) > 1e-4


def test_two_class_tokens_have_a_head_each_and_answer_with_their_mean():
    model, image = build(distilled=True), images()
    params = init(model)
    assert params["dist"].shape == (16,) and params["position"].shape == (8, 16)

    @jax.jit
    def all_of_it(params):
        return [model.apply(params, image, method=name) for name in ("tokens", "features", "__call__")]

    tokens, features, logits = all_of_it(params)
    np.testing.assert_allclose(features, tokens[:, :2].mean(axis=1), atol=1e-6)
    heads = [params[name]["kernel"] for name in ("head", "head_dist")]
    biases = [params[name]["bias"][None] for name in ("head", "head_dist")]
    expected = sum(tokens[:, i] @ heads[i] + biases[i] for i in range(2)) / 2
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_last_norm_stands_before_or_after_the_mean():
    before, after = (build(pool="gap", registers=2, pool_norm=where) for where in ("before", "after"))
    params, image = init(before), images()
    assert jax.tree.structure(params) == jax.tree.structure(init(after))
    raw = jax.jit(lambda p: after.apply(p, image, method="tokens"))(params)

    def norm(x):
        centred = x - x.mean(axis=-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return normal * np.asarray(params["norm"]["scale"]) + np.asarray(params["norm"]["bias"])

    raw = np.float64(raw)[:, 2:]
    for model, expected in ((before, norm(raw).mean(axis=1)), (after, norm(raw.mean(axis=1)))):
        features = jax.jit(lambda p, model=model: model.apply(p, image, method="features"))(params)
        np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize(("placement", "scan"), [("pre", True), ("pre", False), ("post", True), ("parallel", False)])
def test_attention_maps_mix_the_values_into_the_output_of_every_layer(placement, scan):
    model = build(norm_placement=placement, scan=scan, registers=2)
    params, image = init(model), images()
    maps, tokens = jax.jit(lambda p: [model.apply(p, image, method=m) for m in ("attention_maps", "tokens")])(params)
    assert maps.shape == (2, 2, 2, 9, 9) and maps.dtype == jnp.float32  # class token, registers and 6 patches
    np.testing.assert_allclose(maps.sum(axis=-1), np.ones((2, 2, 2, 9)), atol=1e-5)
    module = vit.ViT(model.config, rngs=nnx.Rngs(0))
    nnx.update(module, params)
    module = nnx.view(module, deterministic=True)
    graph, state, rest = nnx.split(module.blocks, nnx.Param, ...)
    x = module._embed(image)
    for layer in range(2):
        block = nnx.merge(graph, *(jax.tree.map(lambda leaf, i=layer: leaf[i], part) for part in (state, rest)))
        inputs = x if placement == "post" else block.norm1(x)
        mixed = jnp.einsum("bhqk,bkhv->bqhv", maps[:, layer], block.attention.value(inputs))
        np.testing.assert_allclose(block.attention.out(mixed), block.attention(inputs), atol=2e-6)
        x = block(x)
    np.testing.assert_allclose(x if module.norm is None else module.norm(x), tokens, atol=1e-5)


def test_a_hybrid_cuts_the_map_of_its_stem():
    config = vit.Config(variant="R50+B/16")
    assert config.stem_units == (3, 4, 9) and config.patch_size == (1, 1) and config.grid == (14, 14)
    assert vit.Config(variant="R+Ti/16").grid == (7, 7)  # by its name 14
    assert vit.Config(variant="R26+S/32", image_size=(384, 225)).grid == (12, 8)
    shapes = paths.flatten(build(stem=(2, 1), patch=1).abstract)
    assert shapes["embedding/kernel"].shape == (1, 1, 512, 16) and shapes["position"].shape == (3, 16)
    names = {path.rpartition("/")[0] for path in shapes if path.startswith("stem/block1/unit1")}
    parts = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv_proj", "norm_proj")
    assert names == {f"stem/block1/unit1/{part}" for part in parts}


def test_dropout_needs_a_key_and_follows_it():
    model = build(dropout=0.3, stochastic_depth=0.3)
    params = init(model)
    run = jax.jit(lambda key: model.apply(params, images(), key=key))
    one, again, other = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, images()), jax.jit(build().apply)(params, images()), atol=1e-6
    )


def walk(jaxpr):
    """All equations, those inside other equations too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from walk(inner)


@pytest.mark.parametrize("pool", ["tok", "gap", "map"])
def test_in_bfloat16_softmax_statistics_and_logits_are_float32(pool):
    model = build(dtype="bfloat16", pool=pool, qk_norm=True, scan=False)
    jaxpr = jax.make_jaxpr(model.apply)(model.abstract, images())
    sensitive = {"exp", "rsqrt", "reduce_max", "reduce_sum", "div"}
    seen = {}
    for eqn in walk(jaxpr.jaxpr):
        seen.setdefault(eqn.primitive.name, []).append({str(var.aval.dtype) for var in eqn.outvars})
    assert {"exp", "rsqrt", "dot_general"} <= set(seen)
    for name in sensitive & set(seen):
        assert all(dtypes == {"float32"} for dtypes in seen[name]), name
    assert {"bfloat16"} in seen["dot_general"]
    assert seen["dot_general"][-1] == {"float32"}  # the head
    assert jaxpr.out_avals[0].dtype == jnp.float32


def test_a_tiny_model_learns_eight_images_by_heart():
    model = build(image_size=8)
    params, image, label = init(model), images((8, 8), 8), jnp.arange(8) % 5

    def loss(params):
        return -jnp.mean(jax.nn.log_softmax(model.apply(params, image))[jnp.arange(8), label])

    @jax.jit
    def fit(params):
        def step(_, params):
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

        return jax.lax.fori_loop(0, 150, step, params)

    assert float(loss(fit(params))) < 0.1 < float(loss(params))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(variant="XL/16"), "A variant is one of Ti, S, .* it is 'XL/16'"),
        (dict(variant="So400/14"), "Did you mean 'So400m'"),
        (dict(variant="S"), "A variant ends in its patch size, such as 'S/16': it is 'S'"),
        (dict(variant=None, width=16), "needs its sizes: depth, heads, mlp_dim not given"),
        (dict(image_size=225), "image 225x225, patch 16x16. Resize the images to 224x224"),
        (dict(heads=7), "width 384 and 7 heads leave 6. Take"),
        (dict(pool="max"), "pool must be one of tok, gap, map: it is 'max'. Did you mean 'map'"),
        (dict(position="sincos"), "position must be one of learned, .* Did you mean 'sincos"),
        (dict(remat="everything"), "remat must be one of full"),
        (dict(activation="gelu"), "activation must be one of gelu_tanh"),
        (dict(dtype="float64"), "dtype must be one of float32, bfloat16, float16"),
        (dict(dropout=1.0), "dropout must be at least 0 and below 1: it is 1.0"),
        (dict(pool="tok", class_token=False), "pool='tok' needs the class token"),
        (dict(width=30, heads=3, position="sincos2d"), "sincos2d needs a width divisible by 4: it is 30"),
        (
            dict(variant="R50+B/8"),
            "A hybrid is one of R50.B/16, R50.B/32, .* it is 'R50.B/8'. Other stems are given by",
        ),
        (
            dict(variant="R50+B/16", image_size=(224, 230), patch=2),
            "an image of 224x230 becomes 14x15, the patch is 2x2",
        ),
        (dict(stem=(3, 0)), "Every stage of a stem needs at least 1 unit: stem is"),
        (dict(stem_epsilon_of="mean"), "stem_epsilon_of must be one of std, variance"),
        (dict(distilled=True, pool="gap"), "pools its two class tokens .* pool is 'gap'"),
        (dict(distilled=True, pre_logits=True), "has no hidden layer: .* pre_logits is True"),
        (dict(pool_norm="behind", pool="gap"), "pool_norm must be one of before, after"),
        (dict(pool_norm="after"), "pool_norm='after' needs a mean and a last norm: pool is 'tok'"),
        (dict(pool_norm="after", pool="gap", norm_placement="post"), "norm_placement 'post'"),
        (dict(poool="tok"), "no setting 'poool'. Did you mean 'pool'"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_built(options, message):
    with pytest.raises(types.InputError, match=message):
        functional.from_family("vit", **options)


def test_images_of_another_size_are_refused_with_both_shapes():
    model = build()
    with pytest.raises(types.InputError, match=r"\(8, 12, 3\) after the batch: got \(2, 12, 8, 3\)"):
        jax.eval_shape(model.apply, model.abstract, images((12, 8)))


def test_a_config_is_plain_data_with_all_defaults_in_its_signature():
    config = vit.Config(**TINY)
    assert vit.Config(**dataclasses.asdict(config)) == config
    assert vit.Config() == vit.Config(variant="S/16")
    assert set(models.MODELS) == {"vit", "resnet"}


def test_a_model_may_also_be_used_as_a_plain_module():
    model = vit.ViT(vit.Config(**TINY), rngs=nnx.Rngs(0))
    assert nnx.view(model, deterministic=True)(images()).shape == (2, 5)
