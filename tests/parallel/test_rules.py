"""Presets place parameters by their axes, everything that belongs to a parameter like it, and the rest everywhere."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from transformer_jax import axes as words
from transformer_jax import paths, types
from transformer_jax.optim import optimizers
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import rules

AXES = {
    "cls": ("embed",),
    "blocks/attention/query/kernel": ("layers", "embed", "heads", "head_dim"),
    "blocks/mlp/up/kernel": ("layers", "embed", "mlp"),
    "blocks/norm/scale": ("layers", "embed"),
    "head/kernel": ("embed", "classes"),
}
SHAPES = {
    "cls": (64,),
    "blocks/attention/query/kernel": (1024, 64, 4, 16),
    "blocks/mlp/up/kernel": (16, 64, 256),
    "blocks/norm/scale": (16, 64),
    "head/kernel": (63, 1001),
}
PARAMS = paths.unflatten({path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()})


def specs(preset, mesh, tree=PARAMS):
    return {path: leaf.spec for path, leaf in paths.flatten(rules.shardings(tree, AXES, mesh, preset)).items()}


def test_the_list_of_presets():
    assert list(rules.PRESETS) == ["data", "fsdp", "hybrid", "tensor", "fsdp+tensor", "sequence"]


def test_data_keeps_everything_everywhere():
    assert set(specs("data", meshes.make({"data": 2, "fsdp": 4})).values()) == {P()}


def test_fsdp_cuts_the_largest_axis_that_divides_but_never_the_layers():
    assert specs("fsdp", meshes.make({"data": 2, "fsdp": 4})) == {
        "cls": P(),  # small
        "blocks/attention/query/kernel": P(None, "fsdp"),
        "blocks/mlp/up/kernel": P(None, None, "fsdp"),
        "blocks/norm/scale": P(None, "fsdp"),
        "head/kernel": P(),  # neither 63 nor 1001 divides by 4
    }


@pytest.mark.parametrize("preset", sorted(rules.PRESETS))
@pytest.mark.parametrize("shape", [{"data": -1}, {"data": 4, "fsdp": 2}, {"fsdp": -1}])
def test_every_preset_places_what_divides(preset, shape):
    for path, sharding in paths.flatten(rules.shardings(PARAMS, AXES, meshes.make(shape), preset)).items():
        sharding.shard_shape(SHAPES[path])  # raises where it does not
        assert "fsdp" not in sharding.spec[:1] or AXES[path][0] != "layers"


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_optimizer_state_lies_where_its_parameter_does(name):
    mesh = meshes.make({"fsdp": 8})
    state = jax.eval_shape(optimizers.build(name, PARAMS, stacks={"blocks": 16}).init, PARAMS)
    placed = specs("fsdp", mesh, {"params": PARAMS, "optimizer": state})
    assert placed["optimizer/count"] == P()
    for path in ("blocks/mlp/up/kernel", "cls"):
        assert placed[f"optimizer/mu/{path}"] == placed[f"params/{path}"]
    if name == "adafactor":  # of (layers, embed, mlp), cut along mlp, rows lack mlp and columns embed
        assert placed["optimizer/row/head/kernel"] == P()
        assert placed["optimizer/column/head/kernel"] == P()


def test_the_longest_end_of_a_path_decides():
    mesh = meshes.make({"fsdp": 8})
    tree = {"head": {"head": {"kernel": jax.ShapeDtypeStruct((64, 64), jnp.float32)}}}
    axes = {"kernel": ("layers", "embed"), "head/kernel": ("embed", "layers")}
    assert rules.shardings(tree, axes, mesh, "fsdp")["head"]["head"]["kernel"].spec == P("fsdp")


def test_names_that_meet_nothing_are_an_error():
    with pytest.raises(types.InputError, match="no path of the tree ends in 'cls'"):
        rules.shardings({"other": jax.ShapeDtypeStruct((4,), jnp.float32)}, AXES, meshes.make({"data": -1}), "data")


def test_an_unknown_preset_names_its_neighbour():
    with pytest.raises(types.InputError, match="Did you mean 'fsdp'"):
        rules.shardings(PARAMS, AXES, meshes.make({"data": -1}), "fsdpp")


def test_activations_stay_where_the_batch_is_within_the_context_only():
    mesh = meshes.make({"data": 2, "fsdp": 4})

    def constrained(x):
        return words.constrain(x * 2, "batch", "length", "embed")

    with words.placed(rules.Placement(mesh)):
        inside = jax.make_jaxpr(constrained)(jnp.ones((8, 3, 4)))
        uneven = jax.make_jaxpr(constrained)(jnp.ones((6, 3, 4)))
        unnamed = jax.make_jaxpr(lambda x: words.constrain(x, None, "embed"))(jnp.ones((8, 4)))
    outside = jax.make_jaxpr(lambda x: constrained(x))(jnp.ones((8, 3, 4)))
    assert "sharding_constraint" in str(inside)
    assert not any("sharding_constraint" in str(jaxpr) for jaxpr in (uneven, unnamed, outside))
