"""Meshes use every device or say what would."""

import jax
import pytest
from jax.sharding import AxisType

from transformer_jax import types
from transformer_jax.parallel import mesh as meshes


@pytest.mark.parametrize(
    ("shape", "data", "fsdp"),
    [({}, 1, 1), ({"data": -1}, 1, 1)],
)
def test_one_device_is_a_mesh(shape, data, fsdp):
    mesh = meshes.make(shape, jax.devices()[:1])
    assert (mesh.shape["data"], mesh.shape["fsdp"], mesh.size) == (data, fsdp, 1)


@pytest.mark.parametrize(
    ("shape", "data", "fsdp"),
    [
        ({"data": -1}, 8, 1),
        ({"data": -1, "fsdp": 4}, 2, 4),
        ({"data": 2, "fsdp": -1}, 2, 4),
        ({"fsdp": 8}, 1, 8),
        ({"data": 8, "fsdp": -1, "tensor": 1, "sequence": 1, "replica": 1}, 8, 1),
    ],
)
def test_sizes(shape, data, fsdp):
    mesh = meshes.make(shape)
    assert mesh.axis_names == meshes.AXES
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == (data, fsdp)
    assert meshes.batch_parts(mesh) == 8
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": -1, "fsdp": 3}, "fsdp=3 make 3, there are 8: the axes may multiply to 1, 2, 4, 8"),
        ({"data": 16}, "data=16 make 16, there are 8"),
        ({"data": 4}, "data=4 make 4, there are 8: set data=-1"),
        ({"data": -1, "fsdp": -1}, "data and fsdp are"),
        ({"data": 0}, "must be positive, or -1 for the rest: data is 0"),
        ({"fdsp": 2}, "Did you mean 'fsdp'"),
        (
            {"data": -1, "tensor": 2},
            "over the axis 'tensor' by the rules 'data': it must be 1, not 2. Set parallel.rules to 'tensor' or",
        ),
    ],
)
def test_what_cannot_be_says_what_would(shape, message):
    with pytest.raises(types.InputError, match=message):
        meshes.make(shape)


def test_a_batch_must_divide_over_the_devices():
    mesh = meshes.make({"data": 2, "fsdp": 4})
    meshes.check_batch(16, mesh)
    with pytest.raises(types.InputError, match="100 examples over 8 of them. 96 or 104 would"):
        meshes.check_batch(100, mesh)
    with pytest.raises(types.InputError, match="3 examples over 8 of them. 8 would"):
        meshes.check_batch(3, mesh)
