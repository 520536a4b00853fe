"""Presets place parameters by their axes, everything that belongs to a parameter like it, and the rest everywhere."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from tests.parallel import fakes
from transformer_jax import axes as words
from transformer_jax import paths, types
from transformer_jax.models import functional
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


def test_tensor_cuts_heads_and_hidden_features_only():
    assert specs("tensor", meshes.make({"data": 2, "tensor": 4}, preset="tensor")) == {
        "cls": P(),
        "blocks/attention/query/kernel": P(None, None, "tensor"),
        "blocks/mlp/up/kernel": P(None, None, "tensor"),
        "blocks/norm/scale": P(),
        "head/kernel": P(),
    }


def test_fsdp_takes_the_axis_that_tensor_leaves():
    assert specs("fsdp+tensor", meshes.make({"fsdp": 2, "tensor": 4}, preset="fsdp+tensor")) == {
        "cls": P(),
        "blocks/attention/query/kernel": P(None, "fsdp", "tensor"),
        "blocks/mlp/up/kernel": P(None, "fsdp", "tensor"),
        "blocks/norm/scale": P(None, "fsdp"),
        "head/kernel": P(),
    }


@pytest.mark.parametrize(
    ("names", "shape", "size", "spec"),
    [
        (("embed", "mlp"), (1280, 5120), 64, P(None, "fsdp")),  # 20 rows of embed fill no tile, 80 of mlp do
        (("embed", "mlp"), (1152, 4304), 8, P("fsdp")),  # 144 rows, where the longer axis would have 538
        (("embed", "mlp"), (768, 3072), 8, P(None, "fsdp")),
        (("mlp", "embed"), (3072, 3072), 8, P("fsdp")),  # the first of equal ones
        (("height", "width", "channels", "embed"), (16, 16, 3, 768), 8, P(None, None, None, "fsdp")),
        (("embed", "heads", "head_dim"), (1280, 16, 80), 16, P("fsdp")),
    ],
)
def test_fsdp_prefers_parts_that_fill_tiles(names, shape, size, spec):
    assert rules.parameter(names, shape, meshes.make(None, fakes.devices(1, 1, size), preset="fsdp"), "fsdp") == spec


def test_few_key_heads_are_whole_where_many_heads_are_cut():
    mesh = meshes.make({"data": 2, "tensor": 4}, preset="tensor")
    shape = (64, 2, 64)
    assert rules.parameter(("embed", "kv_heads", "head_dim"), shape, mesh, "tensor") == P()
    assert rules.parameter(("embed", "kv_heads", "head_dim"), (64, 4, 64), mesh, "tensor") == P(None, "tensor")


def test_an_axis_that_does_not_divide_is_named_with_what_would():
    mesh = meshes.make({"tensor": 8}, preset="tensor")
    message = (
        "the axis 'heads' of blocks/attention/query/kernel has 4, tensor is 8. tensor may be 1, 2, 4 for every"
        " parameter of this model on 8 devices, with data=-1"
    )
    with pytest.raises(types.InputError, match=message):
        specs("tensor", mesh)
    with pytest.raises(types.InputError, match="the axis 'vocab' of table has 30, tensor is 8"):
        tree = {"table": jax.ShapeDtypeStruct((30, 64), jnp.float32)}
        rules.shardings(tree, {"table": ("vocab", "embed")}, mesh, "tensor")


def zero(preset, mesh, name="adamw", tree=PARAMS):
    state = jax.eval_shape(optimizers.build(name, tree, stacks={"blocks": 16}).init, tree)
    whole = {"params": tree, "optimizer": state, "average": tree}
    placed = rules.shardings(whole, AXES, mesh, preset, optimizer_state="data")
    return {path: leaf.spec for path, leaf in paths.flatten(placed).items()}


def test_zero_1_cuts_the_state_of_the_optimizer_and_nothing_else():
    placed = zero("data", meshes.make({"data": 4, "fsdp": 2}))
    assert placed["optimizer/mu/blocks/mlp/up/kernel"] == P(None, None, ("data", "fsdp"))
    assert placed["optimizer/nu/blocks/mlp/up/kernel"] == P(None, None, ("data", "fsdp"))
    assert placed["optimizer/count"] == placed["optimizer/mu/cls"] == P()
    assert {spec for path, spec in placed.items() if not path.startswith("optimizer")} == {P()}


def test_zero_1_beside_fsdp_takes_another_axis():
    placed = zero("fsdp", meshes.make({"data": 2, "fsdp": 4}, preset="fsdp"))
    assert placed["optimizer/mu/blocks/mlp/up/kernel"] == P(None, "data", "fsdp")
    assert placed["params/blocks/mlp/up/kernel"] == placed["average/blocks/mlp/up/kernel"] == P(None, None, "fsdp")


def test_zero_1_on_one_device_is_nothing():
    assert set(zero("data", meshes.make({"data": 1}, jax.devices()[:1])).values()) == {P()}


def test_factored_moments_lie_like_what_is_left_of_their_parameter():
    placed = zero("fsdp", meshes.make({"fsdp": 4, "data": 2}, preset="fsdp"), "adafactor")
    assert placed["optimizer/mu/blocks/mlp/up/kernel"] == P(None, "data", "fsdp")
    assert placed["optimizer/row/blocks/mlp/up/kernel"] == P(None, "data")  # (layers, embed)
    assert placed["optimizer/column/blocks/mlp/up/kernel"] == P(None, "fsdp")  # (layers, mlp)


def test_a_factored_moment_that_could_be_either_side_of_a_square_is_whole():
    axes = {"square": ("embed", "mlp")}
    tree = {"square": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    moments = {"row": {"square": jax.ShapeDtypeStruct((64,), jnp.float32)}}
    mesh = meshes.make({"fsdp": 8}, preset="fsdp")
    placed = rules.shardings({"params": tree, "optimizer": moments}, axes, mesh, "fsdp")
    assert placed["optimizer"]["row"]["square"].spec == P()


def test_the_guard_names_what_stays_whole_and_what_would_cut_it():
    mesh = meshes.make({"fsdp": 8}, preset="fsdp")
    tree = {"kernel": jax.ShapeDtypeStruct((64, 20), jnp.float32)}
    odd = {"kernel": jax.ShapeDtypeStruct((72, 20), jnp.float32)}
    axes = {"even/kernel": ("embed", "mlp"), "odd/kernel": ("embed", "mlp")}
    rules.require_sharded({"even": tree, "odd": odd}, axes, mesh, "fsdp")  # 72 divides by 8
    odd = {"kernel": jax.ShapeDtypeStruct((36, 36), jnp.float32)}
    message = r"50\.3% are, as no axis divides by fsdp=8 in odd/kernel \(embed 36, mlp 36\). fsdp=4 would do"
    with pytest.raises(types.InputError, match=message):
        rules.require_sharded({"even": tree, "odd": odd}, axes, mesh, "fsdp")
    rules.require_sharded({"even": tree, "odd": odd}, axes, mesh, "data")
    rules.require_sharded({"even": tree, "odd": odd}, axes, meshes.make({"fsdp": 4, "data": 2}), "fsdp")


def test_the_guard_proposes_parts_that_fill_tiles():
    mesh = meshes.make(None, fakes.devices(1, 1, 512), preset="fsdp")
    tree = {"kernel": jax.ShapeDtypeStruct((1280, 16, 80), jnp.float32)}
    with pytest.raises(types.InputError, match="fsdp=32 would do"):  # 40 rows; 256 would leave 5
        rules.require_sharded(tree, {"kernel": ("embed", "heads", "head_dim")}, mesh, "fsdp")


def test_the_guard_allows_2_percent_and_what_is_too_small_to_cut():
    mesh = meshes.make({"fsdp": 8}, preset="fsdp")
    axes = {"table": ("vocab", "embed"), "odd": ("embed", "mlp")}
    tree = {"table": jax.ShapeDtypeStruct((800, 64), jnp.float32), "odd": jax.ShapeDtypeStruct((25, 41), jnp.float32)}
    with pytest.raises(types.InputError, match="No smaller fsdp would do; or take the rules 'data'"):
        rules.require_sharded(tree | {"table": jax.ShapeDtypeStruct((640, 64), jnp.float32)}, axes, mesh, "fsdp")
    rules.require_sharded(tree, axes, mesh, "fsdp")
    tiny = {"table": jax.ShapeDtypeStruct((10, 10), jnp.float32), "odd": jax.ShapeDtypeStruct((25, 40), jnp.float32)}
    rules.require_sharded(tiny, axes, mesh, "fsdp")


MODELS = {
    "every part of a vit": (
        "vit",
        dict(variant="Ti/16", class_token=True, pool="map", kv_heads=1, mlp="gated", qk_norm=True, registers=4,
             pre_logits=True, layer_scale=1e-5),
        3,
    ),
    "ViT-H/14": ("vit", dict(variant="H/14"), 8),
    "a hybrid": ("vit", dict(variant="R26+S/32"), 2),
    "a resnet": ("resnet", dict(variant="R50x1"), 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    return {name: functional.from_family(family, **config) for name, (family, config, _) in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("preset", rules.PRESETS)
def test_any_model_under_any_preset(models, name, preset):
    model, tensor = models[name], MODELS[name][2]
    shape = {"data": 2, "fsdp": 4, "tensor": tensor}
    if "tensor" not in rules.PRESETS[preset].axes:
        shape = shape | {"data": 2 * tensor, "tensor": 1}
    mesh = meshes.make(shape, fakes.devices(1, 1, 8 * tensor), preset=preset)
    rules.require_sharded(model.abstract, model.axes, mesh, preset)
    placed = paths.flatten(rules.shardings(model.abstract, model.axes, mesh, preset, optimizer_state="data"))
    for path, leaf in paths.flatten(model.abstract).items():
        words_of = model.axes[path]
        for axis, cut in enumerate(placed[path].spec):
            cut = (cut,) if isinstance(cut, str) else cut or ()
            assert not leaf.shape[axis] % math.prod([mesh.shape[other] for other in cut])
            assert not cut or words_of[axis] != "layers"
            assert "tensor" not in cut or words_of[axis] in ("heads", "kv_heads", "mlp", "vocab")


SPREAD = meshes.make({"data": 2, "sequence": 4}, preset="sequence")
CUT = meshes.make({"data": 2, "tensor": 4}, preset="tensor")


@pytest.mark.parametrize(
    ("mesh", "preset", "shape", "names", "spec"),
    [
        (SPREAD, "sequence", (8, 16, 64), ("batch", "length", "embed"), P(("replica", "data", "fsdp"), "sequence")),
        (SPREAD, "sequence", (8, 17, 64), ("batch", "length", "embed"), P(("replica", "data", "fsdp"), "sequence")),
        (SPREAD, "sequence", (8, 1, 64), ("batch", "length", "embed"), P(("replica", "data", "fsdp"))),
        (SPREAD, "sequence", (8, 16, 4, 8), ("batch", "memory", "heads", None), P(("replica", "data", "fsdp"))),
        (CUT, "tensor", (8, 16, 4, 8), ("batch", "length", "heads", "head_dim"),
         P(("replica", "data", "fsdp"), None, "tensor")),
        (CUT, "tensor", (8, 16, 2, 8), ("batch", "memory", "kv_heads", "head_dim"), P(("replica", "data", "fsdp"))),
        (CUT, "tensor", (7, 16, 64), ("batch", "length", "embed"), P()),
    ],
)  # fmt: skip
def test_activations_lie_where_their_words_say(mesh, preset, shape, names, spec):
    with words.placed(rules.Placement(mesh, preset)):
        program = jax.make_jaxpr(lambda x: words.constrain(x, *names))(jax.ShapeDtypeStruct(shape, jnp.float32))
    (equation,) = program.eqns
    found = equation.params["sharding"].spec
    given = [None if cut is P.UNCONSTRAINED else cut for cut in found]
    assert P(*given[: len(spec)]) == spec and not any(given[len(spec) :])
    free = [axis for axis, cut in enumerate(found) if cut is P.UNCONSTRAINED]
    assert free == [axis for axis, name in enumerate(names) if name is None or (name == "batch" and shape[0] % 2)]


def test_a_function_on_shards_is_given_corresponding_parts():
    names = ("batch", "length", "heads", None), ("batch", "memory", "kv_heads", None)
    seen = []

    def function(query, key):
        seen.append((query.shape, key.shape))
        return query * jnp.sum(key)

    def run(mesh, preset, heads, kv_heads, length=8):
        with words.placed(rules.Placement(mesh, preset)):
            query, key = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, length, heads, 2), (4, 8, kv_heads, 2)))
            out = jax.eval_shape(words.on_shards(function, names, names[0]), query, key)
        assert out.shape == query.shape
        return seen.pop()

    assert run(CUT, "tensor", 8, 4) == ((2, 8, 2, 2), (2, 8, 1, 2))
    assert run(CUT, "tensor", 8, 2) == ((2, 8, 8, 2), (2, 8, 2, 2))  # heads go with their key heads
    assert run(SPREAD, "sequence", 8, 4) == ((2, 2, 8, 2), (2, 8, 4, 2))
    assert run(SPREAD, "sequence", 8, 4, length=9) == ((2, 9, 8, 2), (2, 8, 4, 2))
