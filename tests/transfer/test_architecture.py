"""The architecture is read from names and shapes."""

import hashlib

import jax
import numpy as np
import pytest

from transformer_jax import paths
from transformer_jax.models import functional, vit, vit_variants
from transformer_jax.transfer import architecture, layouts

from . import fakes


def _abstract(**config):
    model = functional.from_family("vit", **config)
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
