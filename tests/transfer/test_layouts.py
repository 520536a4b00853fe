"""The tables cover every name in both directions."""

import numpy as np
import pytest

from transformer_jax import paths, types
from transformer_jax.models import functional
from transformer_jax.transfer import layouts

from . import fakes


@pytest.mark.parametrize("pre_logits", [True, False], ids=["2020", "augreg"])
def test_published_names_come_back_bit_for_bit(pre_logits):
    arrays = fakes.google(pre_logits=pre_logits, depth=11)
    ours, style, unused = layouts.read(arrays, "google")
    assert unused == ()
    back, unused, _ = layouts.write(ours, "google", style)
    assert unused == () and sorted(back) == sorted(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape and back[name].tobytes() == array.tobytes(), name


def test_every_parameter_of_our_model_has_a_published_name_of_its_shape():
    model = functional.from_family(
        "vit",
        variant=None,
        width=8,
        depth=2,
        heads=2,
        mlp_dim=12,
        patch=4,
        image_size=12,
        num_classes=5,
        pre_logits=True,
    )
    flat = paths.unstack(
        paths.flatten(model.abstract), model.stacks, take=lambda leaf, _: np.empty(leaf.shape[1:], leaf.dtype)
    )
    ours = layouts.read(fakes.google(), "google").params
    assert {path: tuple(leaf.shape) for path, leaf in flat.items()} == {p: leaf.shape for p, leaf in ours.items()}


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", "params/img/", "img/"])
def test_the_wrapper_of_a_training_state_is_taken_off(prefix):
    arrays = fakes.google()
    wrapped = {f"{prefix}{name}": array for name, array in arrays.items()} | {"opt/state/step": np.array(7)}
    assert layouts.find(wrapped) == ("google", prefix)
    ours, _, unused = layouts.read(wrapped, "google", wrapper=prefix)
    assert unused == ("opt/state/step",)
    assert sorted(ours) == sorted(layouts.read(arrays, "google").params)


def test_keys_of_no_rule_are_accounted_for():
    arrays = fakes.google() | {"Transformer/encoderblock_0/Adapter_0/kernel": np.zeros(3)}
    assert layouts.read(arrays, "google").unused == ("Transformer/encoderblock_0/Adapter_0/kernel",)
    assert layouts.write({"registers": np.zeros((4, 8))}, "google").unused == ("registers",)


def test_the_layout_is_seen_by_the_names():
    arrays = fakes.google()
    assert layouts.find(arrays) == ("google", "")
    assert layouts.find(layouts.read(arrays, "google").params) == ("neutral", "")
    with pytest.raises(types.InputError, match="They are an MLP-Mixer's, which is not read"):
        layouts.find(["MixerBlock_0/LayerNorm_0/bias"])
    with pytest.raises(types.InputError, match=r"these begin with \['a', 'cls'\]"):
        layouts.find(["cls", "a"])


def test_an_array_without_its_leading_axes_is_refused():
    with pytest.raises(types.InputError, match=r"'cls' must be .* two axes of length 1 in front: its shape is \(8,\)"):
        layouts.read(fakes.google() | {"cls": np.zeros(8)}, "google")
