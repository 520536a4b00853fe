import importlib.util
from pathlib import Path

import pytest
from jax.sharding import PartitionSpec

from tests.tools.plan import make_programs
from transformer_jax.tools.plan import collectives, program_text

FOLDER = Path(__file__).parent / "programs"
LAYERS, WEIGHTS = 5, 512 * 512 * 2  # bfloat16, as make_programs.py has them
MESH = {"data": 2, "fsdp": 4, "tensor": 2}


def said(name, mesh, slices=()):
    runs, _ = program_text.walk(*program_text.parse((FOLDER / f"{name}.txt").read_text()))
    return {(one.kind, one.axes, one.devices, one.across): one for one in collectives.summary(runs, mesh, slices)}


def test_data_parallel_gradients_are_reduced_once_a_layer():
    found = said("scanned", {"data": 8})
    one = found.pop(("all-reduce", "data", 8, False))
    assert (one.count, one.bytes, one.sent) == (LAYERS, LAYERS * WEIGHTS, LAYERS * WEIGHTS * 2 * 7 // 8)
    assert not found


def test_fsdp_gathers_every_weight_twice_and_scatters_its_gradient():
    """Asynchronous gathers are spread over many fusions; a reduce-scatter is written as an all-reduce in a fusion."""
    found = said("sharded", {"data": 2, "fsdp": 8})
    gathered, scattered = found.pop(("all-gather", "fsdp", 8, False)), found.pop(("reduce-scatter", "fsdp", 8, False))
    assert (gathered.count, gathered.bytes) == (2 * LAYERS, 2 * LAYERS * WEIGHTS)
    assert (scattered.count, scattered.bytes) == (LAYERS, LAYERS * WEIGHTS)
    assert scattered.sent == LAYERS * WEIGHTS * 7 // 8
    between = found.pop(("all-reduce", "data", 2, False))
    assert between.bytes == LAYERS * WEIGHTS // 8  # only the shard each device keeps
    assert not found


def test_what_7x_sends_from_its_sparse_cores_is_seen():
    found = said("offloaded", {"fsdp": 8})
    gathered, scattered = found.pop(("all-gather", "fsdp", 8, False)), found.pop(("reduce-scatter", "fsdp", 8, False))
    assert (gathered.count, gathered.bytes) == (2 * LAYERS, 2 * LAYERS * WEIGHTS)
    assert (scattered.count, scattered.bytes) == (LAYERS, LAYERS * WEIGHTS)
    assert not found


def test_between_slices_goes_what_a_slice_has_reduced():
    found = said("slices", {"replica": 2, "data": 4}, [0] * 4 + [1] * 4)
    network = found.pop(("all-reduce", "replica", 2, True))
    assert (network.count, network.bytes) == (LAYERS, LAYERS * WEIGHTS // 4)
    assert {key[:3] for key in found} == {("reduce-scatter", "data", 4), ("all-gather", "data", 4)}
    assert all(one.bytes == LAYERS * WEIGHTS for one in found.values())


def test_on_gpus_what_is_started_counts_by_its_results():
    """`-start` has its operands beside its results, each a tuple where several arrays go together."""
    found, both = said("gpu", {"fsdp": 8}), 2 * (512 * 1024 * 2)  # two weights of 512 x 1024, one of 512 x 512
    sizes = {key: (one.count, one.bytes, one.sent) for key, one in found.items()}
    assert sizes == {
        ("all-gather", "fsdp", 8, False): (1, both, both * 7 // 8),
        ("reduce-scatter", "fsdp", 8, False): (1, both, both * 7 // 8),
        ("all-reduce", "fsdp", 8, False): (1, WEIGHTS, WEIGHTS * 2 * 7 // 8),
    }


@pytest.mark.parametrize(
    "shape, opcode, size",
    [
        ("f32[8]{0}", "all-reduce-start", 32),
        ("(f32[8]{0}, bf16[4]{0})", "all-reduce-start", 40),  # as TPUs have it: the results alone
        ("((f32[8]{0}), f32[8]{0})", "all-reduce-start", 32),
        ("((f32[8]{0}, bf16[4]{0}), (f32[8]{0}, bf16[4]{0}))", "all-reduce-start", 40),
        ("(f32[8]{0:T(8,128)}, f32[64]{0}, u32[], u32[])", "all-gather-start", 256),
        ("((f32[8]{0}, f32[2,4]{1,0}), (f32[64]{0}, /*index=5*/f32[16,4]{1,0}))", "all-gather-start", 512),
        ("((f32[64]{0}), f32[8]{0})", "reduce-scatter-start", 256),
        ("(f32[8]{0}, f32[8]{0}, u32[], u32[])", "collective-permute-start", 32),
        ("(f32[8]{0}, f32[8]{0})", "all-to-all", 64),
    ],
)
def test_every_way_to_write_results_beside_operands(shape, opcode, size):
    rest = "%x), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}"
    runs, _ = program_text.walk(*program_text.parse(f"ENTRY %main () -> f32[] {{\n  %a = {shape} {opcode}({rest}\n}}"))
    (one,) = collectives.summary(runs, {"fsdp": 8})
    assert one.bytes == size


# devices are numbered along the mesh: data * 8 + fsdp * 2 + tensor
@pytest.mark.parametrize(
    "text, axes, devices",
    [
        ("replica_groups={{0,2,4,6},{1,3,5,7},{8,10,12,14},{9,11,13,15}}", "fsdp", 4),
        ("replica_groups=[4,4]<=[2,4,2]T(0,2,1)", "fsdp", 4),
        ("replica_groups=mesh['data'=2,'fsdp'=4,'tensor'=2] {'fsdp'}", "fsdp", 4),
        ("replica_groups=mesh['a'=2,'b'=8] {'b':(1)4}", "fsdp", 4),
        ("replica_groups=mesh['a'=2,'b'=8] {'b'}", "fsdp+tensor", 8),
        ("replica_groups=mesh['a'=4,'b'=4]([2,4,2]T(0,2,1)) {'b'}", "fsdp", 4),
        ("replica_groups=[2,8]<=[16]", "fsdp+tensor", 8),
        ("replica_groups=[8,2]<=[2,8]T(1,0)", "data", 2),
        ("replica_groups={}", "data+fsdp+tensor", 16),
        ("replica_groups={{0,3},{1,2}}", "?", 2),
        ("source_target_pairs={{0,1},{1,0},{2,3},{3,2}}", "tensor", 2),
    ],
)
def test_every_way_to_write_groups_gives_the_axes_of_the_mesh(text, axes, devices):
    found, group, count = collectives.groups(f"%x), channel_id=1, {text}, to_apply=%add", MESH)
    assert (found, count) == (axes, devices)
    assert set(group) <= set(range(16))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")
@pytest.mark.parametrize("topology", ["v2:2x2", "v3:2x2", "v4:2x2x2", "v5e:4x2", "v5p:2x2x2", "v6e:4x2", "7x:2x2x1"])
def test_the_programs_of_every_chip_are_understood(topology):
    """With the libtpu that is installed: fsdp gathers every weight twice, whatever the text looks like."""
    text = make_programs.program(topology, {"fsdp": 8}, PartitionSpec(None, "fsdp"), 4096)
    runs, unknown = program_text.walk(*program_text.parse(text))
    found = {one.kind: one for one in collectives.summary(runs, {"fsdp": 8})}
    gathered = found.pop("all-gather")
    assert (gathered.axes, gathered.count, gathered.bytes) == ("fsdp", 2 * LAYERS, 2 * LAYERS * WEIGHTS)
    reduced = found.pop("reduce-scatter", None) or found.pop("all-reduce")
    assert (reduced.axes, reduced.bytes) == ("fsdp", LAYERS * WEIGHTS)
    assert not found and not unknown and program_text.cycles(runs) > 0
