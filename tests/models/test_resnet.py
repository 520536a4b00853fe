"""The ResNets of Big Transfer: their sizes, their numbers beside timm's, their errors."""

import dataclasses
import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import axes, models, paths, types
from transformer_jax.models import functional, resnet

from .test_golden import GOLDEN
from .test_vit import walk

_spec = importlib.util.spec_from_file_location("make_resnet_logits", GOLDEN / "make_resnet_logits.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)
COUNTS = json.loads((GOLDEN / "parameters_timm.json").read_text())["resnet"]


def build(**options):
    return functional.from_family("resnet", **(maker.TINY | {"head_zero": False} | options))


def weights(model):
    flat = maker.weights({path: leaf.shape for path, leaf in paths.flatten(model.abstract).items()})
    return jax.tree.map(jnp.asarray, paths.unflatten(flat))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def formula(units, width, classes):
    """Counted by hand: kernels of 7x7, 1x1, 3x3 and 1x1 numbers a channel pair, two numbers a normalised channel."""
    total, inputs = 7 * 7 * 3 * width, width
    for stage, number in enumerate(units):
        narrow, wide = width * 2**stage, 4 * width * 2**stage
        for unit in range(number):
            total += inputs * narrow + 9 * narrow**2 + narrow * wide + 2 * (inputs + narrow + narrow)
            total += inputs * wide if unit == 0 else 0
            inputs = wide
    return total + 2 * inputs + inputs * classes + classes


SLOW = ("R101x3", "R152x1", "R152x4", "R200x3")


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in resnet.VARIANTS]
)
def test_parameter_counts_are_the_published_ones(variant):
    config = resnet.Config(variant)
    module = nnx.eval_shape(lambda: resnet.ResNet(config, rngs=nnx.Rngs(0)))
    assert count(nnx.to_pure_dict(nnx.state(module, nnx.Param))) == formula(*config.size, 1000)


def test_the_formula_of_every_published_count_is_that_of_timm():
    assert {variant: formula(*resnet.VARIANTS[variant], 1000) for variant in COUNTS} == COUNTS
    assert len(COUNTS) == 6


def test_logits_are_those_of_timm():
    model = build()
    expected = json.loads((GOLDEN / "resnet_logits.json").read_text())["logits"]
    logits = jax.jit(model.apply)(weights(model), jnp.asarray(maker.images()))
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # the two images differ


def test_parameters_have_the_published_names_and_words_of_the_vocabulary():
    model = build()
    shapes = paths.flatten(model.abstract)
    assert shapes["root/conv/kernel"].shape == (7, 7, 3, 32)
    assert shapes["block2/unit1/conv_proj/kernel"].shape == (1, 1, 128, 256)
    assert shapes["block2/unit2/conv2/kernel"].shape == (3, 3, 64, 64)
    assert shapes["norm/scale"].shape == (256,) and "block2/unit2/conv_proj/kernel" not in shapes
    for path, words in model.axes.items():
        assert len(words) == len(shapes[path].shape) and set(words) <= axes.WORDS, path
    assert model.stacks == {}


def test_every_parameter_trains():
    model = build(units=(1,), remat="full")

    def loss(params):
        logits = model.apply(params, jnp.asarray(maker.images()), key=jax.random.key(0))
        return -jnp.sum(jax.nn.log_softmax(logits)[:, 1])

    for path, grad in paths.flatten(jax.jit(jax.grad(loss))(weights(model))).items():
        assert np.isfinite(grad).all() and float(jnp.abs(grad).max()) > 0.0, path


def test_features_are_what_the_head_sees():
    model = build(units=(1,))
    params, image = weights(model), jnp.asarray(maker.images())
    features = jax.jit(lambda p: model.apply(p, image, method="features"))(params)
    assert features.shape == (2, 128) and features.dtype == jnp.float32
    logits = features @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(jax.jit(model.apply)(params, image), logits, atol=1e-5)


def test_in_bfloat16_statistics_and_logits_are_float32():
    model = build(dtype="bfloat16")
    jaxpr = jax.make_jaxpr(model.apply)(model.abstract, jnp.asarray(maker.images()))
    seen = {}
    for equation in walk(jaxpr.jaxpr):
        seen.setdefault(equation.primitive.name, []).append({str(var.aval.dtype) for var in equation.outvars})
    for name in ("rsqrt", "reduce_sum", "div"):
        assert all(dtypes == {"float32"} for dtypes in seen[name]), name
    assert all(dtypes == {"bfloat16"} for dtypes in seen["conv_general_dilated"])
    assert {"bfloat16"} in seen["dot_general"] and seen["dot_general"][-1] == {"float32"}  # the head
    assert jaxpr.out_avals[0].dtype == jnp.float32


def test_a_config_is_plain_data():
    config = resnet.Config(**maker.TINY)
    assert resnet.Config(**dataclasses.asdict(config)) == config
    assert config.image_shape == (33, 40, 3)
    assert models.MODELS["resnet"].config is resnet.Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(variant="R51x1"), "variant must be one of R50x1, .* Did you mean 'R50x1'"),
        (dict(variant=None, width=32), "A model without a variant needs its sizes: units not given"),
        (dict(units=()), "stages of at least 1 unit: units is \\(\\)"),
        (dict(width=48), "The width must be a multiple of 32: it is 48"),
        (dict(remat="all"), "remat must be one of full"),
        (dict(epsilon_of="mean"), "epsilon_of must be one of std, variance"),
        (dict(image_size=0), "image_size must be at least 1: it is 0"),
        (dict(num_classes=0), "num_classes must be at least 1: it is 0"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_built(options, message):
    with pytest.raises(types.InputError, match=message):
        resnet.Config(**options)


def test_images_of_another_size_are_refused_with_both_shapes():
    model = build()
    with pytest.raises(types.InputError, match=r"\(33, 40, 3\) after the batch: got \(2, 40, 33, 3\)"):
        jax.eval_shape(model.apply, model.abstract, jnp.zeros((2, 40, 33, 3)))
