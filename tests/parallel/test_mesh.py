"""Meshes use every device or say what would."""

import jax
import pytest
from jax.sharding import AxisType

from tests.parallel import fakes
from transformer_jax import types
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import multihost, presets


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


SHAPES = [  # preset, (slices, hosts a slice, devices a host), platform, sizes above 1
    ("data", (1, 2, 8), "gpu", {"data": 16}),
    ("fsdp", (1, 2, 8), "gpu", {"fsdp": 16}),
    ("hybrid", (1, 2, 8), "gpu", {"replica": 2, "fsdp": 8}),
    ("hybrid", (1, 16, 4), "tpu", {"fsdp": 64}),
    ("hybrid", (2, 16, 4), "tpu", {"replica": 2, "fsdp": 64}),
    ("tensor", (1, 2, 8), "gpu", {"data": 2, "tensor": 8}),
    ("fsdp+tensor", (1, 2, 8), "gpu", {"fsdp": 4, "tensor": 4}),
    ("sequence", (1, 2, 4), "tpu", {"data": 2, "sequence": 4}),
    ("hybrid", (1, 1, 1), "cpu", {}),
    ("tensor", (1, 1, 1), "cpu", {}),
]


@pytest.mark.parametrize(("preset", "counts", "platform", "sizes"), SHAPES)
def test_every_preset_has_its_mesh(preset, counts, platform, sizes):
    mesh = meshes.make(None, fakes.devices(*counts, platform=platform), preset=preset)
    assert {axis: size for axis, size in mesh.shape.items() if size > 1} == sizes


def test_the_list_of_meshes_is_complete():
    assert {preset for preset, *_ in SHAPES} == set(presets.PRESETS)


def at(mesh, **place):
    """The devices at a place of the mesh."""
    return mesh.devices[tuple(place.get(axis, slice(None)) for axis in meshes.AXES)].reshape(-1)


def test_only_the_axis_across_slices_leaves_one():
    mesh = meshes.make({"replica": 2, "data": 2, "fsdp": 4}, fakes.devices(2, 2, 4), preset="hybrid")
    assert {device.slice_index for device in at(mesh, replica=0)} == {0}
    assert {device.slice_index for device in at(mesh, replica=1)} == {1}
    mesh = meshes.make({"data": 4, "fsdp": 4}, fakes.devices(2, 2, 4), across={"fsdp": 2}, preset="fsdp")
    assert all(device.slice_index == part // 2 for part in range(4) for device in at(mesh, fsdp=part))


def test_two_axes_may_share_the_slices():
    mesh = meshes.make({"replica": 2, "data": 4, "fsdp": 2}, fakes.devices(4, 1, 4), across={"replica": 2, "data": 2})
    slices = {(r, d): at(mesh, replica=r, data=d)[0].slice_index for r in range(2) for d in range(4)}
    assert [slices[place] for place in sorted(slices)] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("counts", "shape", "preset", "expected"),
    [  # XLA gives every GPU node a slice_index of its own: (nodes, processes a node, GPUs a process)
        ((4, 1, 4), {"data": 2, "fsdp": 8}, "fsdp", [[0, 1], [2, 3]]),
        ((4, 1, 4), {"replica": 2, "fsdp": 8}, "hybrid", [[0, 1], [2, 3]]),
        ((4, 1, 4), {"data": 2, "fsdp": 4, "tensor": 2}, "fsdp+tensor", [[0, 1], [2, 3]]),
        ((4, 4, 1), {"data": 2, "fsdp": 8}, "fsdp", [[0, 1], [2, 3]]),  # one process a GPU
        ((4, 4, 1), {"data": 4, "fsdp": 4}, "fsdp", [[0], [1], [2], [3]]),
        ((2, 1, 8), {"data": 2, "fsdp": 8}, "fsdp", [[0], [1]]),
        ((2, 1, 8), {"fsdp": 4, "tensor": 4}, "fsdp+tensor", [[0], [0], [1], [1]]),
    ],
)
def test_the_first_axes_share_the_slices_and_the_last_ones_stay_within_them(counts, shape, preset, expected):
    mesh = meshes.make(shape, fakes.devices(*counts), preset=preset)
    first = next(iter(shape))
    found = [sorted({device.slice_index for device in at(mesh, **{first: part})}) for part in range(shape[first])]
    assert found == expected
    if "tensor" in shape:
        assert all(
            len({device.slice_index for device in row}) == 1 for row in mesh.devices.reshape(-1, shape["tensor"])
        )
    processes = counts[0] * counts[1]
    parts = min(processes, meshes.batch_parts(mesh))
    assert [meshes.readers(mesh, process) for process in range(processes)] == [(i, parts) for i in range(processes)]


def test_no_mesh_waits_for_another_process(monkeypatch):
    for name in ("barrier", "gather"):
        monkeypatch.setattr(multihost, name, None)
    monkeypatch.setattr(multihost, "count", lambda: 2)
    assert meshes.make({"data": -1}).size == 8


def test_on_one_slice_nothing_is_across():
    mesh = meshes.make({"data": -1}, across={"replica": 2})
    assert mesh.shape["data"] == 8


def test_the_last_axes_stay_within_a_host_in_whatever_order_devices_are_listed():
    listed = fakes.devices(1, 4, 4)[::-1]
    mesh = meshes.make({"fsdp": 4, "tensor": 4}, listed, preset="fsdp+tensor")
    assert all({device.process_index for device in at(mesh, fsdp=part)} == {part} for part in range(4))


@pytest.mark.parametrize(
    ("shape", "across", "message"),
    [
        ({"data": 8, "fsdp": 2}, {"replica": 2}, "there are 2 slices, the mesh is data=8, fsdp=2, across is replica=2"),
        ({"data": 16}, {"data": 4}, "across is data=4. Set parallel.across, such as {'replica': 2}"),
        ({"data": 16}, {"dta": 2}, "Did you mean 'data'"),
    ],
)
def test_slices_that_cannot_be_cut_say_what_would(shape, across, message):
    with pytest.raises(types.InputError, match=message):
        meshes.make(shape, fakes.devices(2, 1, 8), across=across)


def test_slices_of_different_sizes_are_an_error():
    with pytest.raises(types.InputError, match="as many devices as each other: they have 8, 4"):
        meshes.make({"data": -1}, fakes.devices(2, 1, 8)[:12])


@pytest.mark.parametrize(
    ("shape", "preset", "hosts", "expected"),
    [
        ({"data": -1}, "data", 2, [(0, 2), (1, 2)]),
        ({"data": 2, "fsdp": -1}, "fsdp", 4, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ({"data": -1, "tensor": 4}, "tensor", 2, [(0, 2), (1, 2)]),
        ({"data": 2, "tensor": -1}, "tensor", 4, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # two hosts hold the same rows
        ({"sequence": -1}, "sequence", 4, [(0, 1)] * 4),
        ({"replica": 2, "fsdp": -1}, "hybrid", 4, [(0, 4), (1, 4), (2, 4), (3, 4)]),
    ],
)
def test_a_process_reads_the_rows_of_its_devices(shape, preset, hosts, expected):
    mesh = meshes.make(shape, fakes.devices(1, hosts, 4), preset=preset)
    assert [meshes.readers(mesh, process) for process in range(hosts)] == expected


def test_slices_across_the_batch_leave_every_process_one_run_of_it():
    mesh = meshes.make({"replica": 2, "fsdp": -1}, fakes.devices(2, 2, 4), preset="hybrid")
    assert [meshes.readers(mesh, process) for process in range(4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_one_process_reads_everything():
    assert meshes.readers(meshes.make({"data": 2, "fsdp": 4})) == (0, 1)


def test_rows_of_a_process_that_are_not_one_run_are_an_error():
    mesh = meshes.make({"replica": 2, "fsdp": 8}, fakes.devices(2, 1, 8), across={"fsdp": 2}, preset="hybrid")
    with pytest.raises(types.InputError, match=r"of 16 parts process 0 \[0, 1, 2, 3, 8, 9, 10, 11\]"):
        meshes.readers(mesh, 0)
    three = meshes.make({"data": 4, "tensor": 3}, fakes.devices(1, 2, 6), preset="tensor")
    assert meshes.readers(three, 1) == (1, 2)
    uneven = meshes.make({"data": 3, "tensor": 4}, fakes.devices(1, 2, 6), preset="tensor")
    with pytest.raises(types.InputError, match=r"process 0 \[0, 1\]; process 1 \[1, 2\]"):
        meshes.readers(uneven, 0)


def test_a_process_without_devices_cannot_read():
    with pytest.raises(types.InputError, match="process 7 has none"):
        meshes.readers(meshes.make({"data": -1}, fakes.devices(1, 2, 4)), 7)
