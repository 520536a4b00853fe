"""The architecture is read from names and shapes."""

import hashlib

import jax
import numpy as np
import pytest

from transformer_jax import paths, types
from transformer_jax.models import functional, vit, vit_variants
from transformer_jax.transfer import architecture, layouts

from . import fakes


def _abstract(**config):
    return _neutral(functional.from_family("vit", **config))


def _neutral(model):
    return paths.unstack(
        paths.flatten(model.abstract),
        model.stacks,
        take=lambda leaf, _: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
    )


@pytest.mark.parametrize(
    "config",
    [
        {"variant": "Ti/16", "num_classes": 10},
        {"variant": "S/32", "image_size": 384, "pool": "gap", "registers": 4},
        {"variant": "B/16", "image_size": 224, "pre_logits": True, "pool": "map"},
    ],
)
def test_the_guess_of_our_models_is_their_config(config):
    found = architecture.guess(_abstract(**config))
    wanted = vit.Config(**config)
    assert found["variant"] == wanted.variant
    assert [found[name] for name in vit_variants.Size._fields] == list(wanted.size)
    assert (found["patch"],) * 2 == wanted.patch_size
    for name in ("image_size", "num_classes", "channels", "pool", "registers"):
        assert found[name] == getattr(wanted, name), name
    assert bool(found["pre_logits"]) == bool(wanted.pre_logits)


def test_the_guess_of_a_published_file():
    flat = layouts.read(fakes.google(), "google").params
    found = architecture.guess(flat)
    assert found["variant"] is None
    assert (found["width"], found["depth"], found["heads"], found["mlp_dim"], found["head_dim"]) == (8, 2, 2, 12, 4)
    assert (found["grid"], found["image_size"], found["pre_logits"]) == ((3, 3), 12, 8)
    assert found["parameters"] == sum(leaf.size for leaf in flat.values())
    assert architecture.summary(flat) == "width 8, 2 blocks, 2 heads, MLP 12, patch 4, images of 12, 5 classes"


def test_what_is_no_vit_is_not_guessed():
    assert architecture.guess({"x": np.zeros(3)}) == {}
    assert architecture.summary({"x": np.zeros(3)}) == "1 arrays, not of a ViT"


def test_leaves_are_described_with_the_checksum_of_their_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    assert architecture.describe({"a/b": array}) == {"a/b": {"shape": [2, 3], "dtype": "float32", "sha256": digest}}
    for same in (array.astype(">f4"), np.asfortranarray(array), jax.numpy.asarray(array)):
        assert architecture.describe({"a": same})["a"]["sha256"] == digest
    assert architecture.describe({"a": np.float32(1)})["a"]["shape"] == []


MODELS = {
    "hybrid": dict(variant="R50+B/16", image_size=384),
    "smaller hybrid": dict(variant="R26+S/32"),
    "root only": dict(variant="R+Ti/16"),
    "stem by hand": dict(variant=None, width=16, depth=1, heads=2, mlp_dim=8, patch=2, stem=(1, 2), image_size=64),
    "distilled": dict(variant="Ti/16", distilled=True),
    "registers": dict(variant="S/16", registers=4, layer_scale=1e-5),
    "map": dict(variant="So400m/14", pool="map"),
    "map, class token": dict(variant="S/16", pool="map", class_token=True, num_classes=7),
    "gap": dict(variant="S/16", pool="gap", qk_norm=True),
    "fixed positions": dict(variant="S/16", pool="gap", position="sincos2d"),
    "others": dict(variant="Ti/16", mlp="gated", kv_heads=1, norm="rmsnorm", norm_placement="parallel"),
    "post": dict(variant="Ti/16", norm_placement="post", qk_norm=True, qk_norm_bias=True),
    "ResNet": dict(name="resnet", variant="R50x1"),
    "wide ResNet": dict(name="resnet", variant="R101x3", num_classes=21843),
    "ResNet by hand": dict(name="resnet", variant=None, units=(1, 2), width=32),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_of_parameters_has_these_parameters(kind):
    config = {"name": "vit", "num_classes": 1000, **MODELS[kind]}
    model = functional.from_family(**config)
    found = architecture.model(_neutral(model), {})
    usual = functional.from_family(**found)
    assert {k: v for k, v in found.items() if k != "image_size"} == {
        k: v for k, v in config.items() if k != "image_size"
    }
    assert _neutral(usual) == _neutral(model)


def test_conventions_tell_what_parameters_do_not():
    told = {"activation": "gelu_erf", "pool": "gap", "pool_norm": "after", "normalize": {"mean": [0], "std": [1]}}
    flat = _neutral(functional.from_family("vit", variant="Ti/16", pool="gap", class_token=True))
    found = architecture.model(flat, told)
    assert found == dict(
        name="vit", variant="Ti/16", image_size=224, num_classes=1000, pool="gap", class_token=True,
        activation="gelu_erf", pool_norm="after",
    )  # fmt: skip
    with pytest.raises(types.InputError, match="must be those of a ViT or a ResNet: the file has 1 arrays"):
        architecture.model({"x": np.zeros(3)}, {})
