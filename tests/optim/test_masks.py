"""Patterns choose parameters, must match something, and may not contradict each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import paths, types
from transformer_jax.models import functional
from transformer_jax.optim import masks, optimizers

STACKS = {"blocks": 2}
SHAPES = {
    "cls": (8,),
    "blocks/mlp/kernel": (2, 8, 8),
    "blocks/mlp/bias": (2, 8),
    "head/kernel": (8, 3),
    "head/bias": (3,),
}
ABSTRACT = paths.unflatten({path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()})


def plan(**options):
    return masks.plan(ABSTRACT, stacks=STACKS, **options)


def test_only_kernels_are_decayed_unless_told_otherwise():
    decayed = {path for path, how in plan(weight_decay=0.1).items() if how.decay}
    assert decayed == {"blocks/mlp/kernel", "head/kernel"}


def test_of_a_vit_only_the_matrices_are_decayed():
    """As in big_vision: no bias, norm, token or position, and the patch embedding and the head among them."""
    vit = functional.from_family("vit", variant="Ti/16", image_size=32, num_classes=10, pre_logits=True)
    treatments = masks.plan(vit.abstract, stacks=vit.stacks, weight_decay=0.1)
    inside = [f"attention/{name}" for name in ("query", "key", "value", "out")] + ["mlp/up", "mlp/down"]
    expected = {f"blocks/{name}/kernel" for name in inside}
    expected |= {"embedding/kernel", "pre_logits/kernel", "head/kernel"}
    assert {path for path, how in treatments.items() if how.decay} == expected


def test_decay_may_carry_factors():
    """The head of ViT-g is decayed a hundred times as strongly as its body (2106.04560)."""
    treatments = plan(weight_decay=0.03, decay=["blocks/.*/kernel", ("head/kernel", 100)])
    assert treatments["blocks/mlp/kernel"].decay == pytest.approx(0.03)
    assert treatments["head/kernel"].decay == pytest.approx(3.0)
    assert treatments["cls"].decay == 0


@pytest.mark.parametrize("option", ["decay", "freeze", "multipliers"])
def test_a_pattern_that_matches_nothing_is_an_error_with_a_hint(option):
    rule = ("haed/kernel", 1.0) if option == "multipliers" else "haed/kernel"
    with pytest.raises(types.InputError, match="'haed/kernel' matches none of 7.*Did you mean 'head/kernel'"):
        plan(**{option: [rule]})


def test_contradicting_factors_are_an_error_that_names_both():
    with pytest.raises(types.InputError, match="'head/bias' gets 0.5 from 'head/.\\*' and 2.0 from '.\\*bias'"):
        plan(multipliers=[("head/.*", 0.5), (".*bias", 2.0)])


def test_a_negative_factor_is_an_error():
    with pytest.raises(types.InputError, match="at least 0"):
        plan(multipliers=[("head/.*", -1.0)])


def test_some_layers_of_a_stack_cannot_be_frozen_alone():
    with pytest.raises(types.InputError, match=r"layers \[1\] of 2 of 'blocks/mlp/bias'.*multiplier 0"):
        plan(freeze=["blocks/1/.*"])


def test_something_must_be_left_to_train():
    with pytest.raises(types.InputError, match="left to train"):
        plan(freeze=[".*"])


def test_factors_of_layers_are_arrays_that_broadcast():
    multiplier = plan(multipliers=[("blocks/0/.*", 0.5)])["blocks/mlp/kernel"].multiplier
    np.testing.assert_array_equal(multiplier, np.float32([0.5, 1.0]).reshape(2, 1, 1))


def test_stopped_gradients_are_zero_and_the_rest_are_not():
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), ABSTRACT)

    def loss(params):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(masks.stop_gradient(params, ["blocks/.*"], STACKS)))

    grads = paths.flatten(jax.grad(loss)(params))
    assert {path for path, grad in grads.items() if not grad.any()} == {"blocks/mlp/kernel", "blocks/mlp/bias"}


def test_the_table_says_what_happens_to_every_parameter():
    text = optimizers.table(
        "sgd", ABSTRACT, stacks=STACKS, weight_decay=0.1, freeze=["cls"], multipliers=[("blocks/0/.*", 0.5)]
    )
    assert text.splitlines() == [
        "parameter          shape  size  decay  rate",
        "blocks/mlp/bias    2x8      16      -  x0.5..1",
        "blocks/mlp/kernel  2x8x8   128    0.1  x0.5..1",
        "cls                8         8      -  frozen",
        "head/bias          3         3      -  x1",
        "head/kernel        8x3      24    0.1  x1",
        "179 parameters: 171 trained, 8 frozen, 152 decayed",
        "sgd keeps 0.0 MB beside them",
    ]
