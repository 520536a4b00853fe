import importlib.util

import jax
import jax.numpy as jnp
import pytest

from tests.tools.plan import conftest, small
from transformer_jax import types
from transformer_jax.tools.plan import compiling, estimate, program_text
from transformer_jax.tools.plan import topology as topologies

HAS_COMPILER = importlib.util.find_spec("libtpu") is not None
GIB = 2**30


@pytest.mark.parametrize(
    "message, wanted, there",
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO"
            " temporaries (18.50G) exceeds available HBM (15.48G). HLO module: jit_train_step.",
            18.5 * GIB,
            15.48 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 22.10G of"
            " 15.75G hbm. Exceeded hbm capacity by 6.35G.",
            22.1 * GIB,
            15.75 * GIB,
        ),
        ("RESOURCE_EXHAUSTED: temporaries (512.00M) exceeds available HBM (1.00G)", 2**29, GIB),
    ],
)
def test_running_out_of_memory_is_read_from_the_message(message, wanted, there):
    assert compiling.out_of_memory(message) == (int(wanted), int(there))


def test_another_error_is_none_of_memory():
    assert compiling.out_of_memory("INVALID_ARGUMENT: no such thing") is None
    assert compiling.out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem") is None


def test_nothing_is_opened_and_facts_are_those_of_the_program(compiled):
    assert compiled.settings["data"]["source"] == "tfds:nowhere"
    assert compiled.fits and compiled.memory.peak == compiled.needed_bytes > 0
    assert compiled.parameters == sum(leaf.size for leaf in jax.tree.leaves(compiled.program.model.abstract))
    assert compiled.bytes_of("params") == 4 * compiled.parameters  # whole on every device
    assert compiled.flops == compiled.program.flops("train", 64)
    assert compiled.classes_assumed and compiled.program.model.config.num_classes == 1000


def test_fsdp_divides_what_a_device_holds(compiled, refusing):
    cut = compiling.compile_step(
        small.settings(parallel=dict(rules="fsdp", mesh=dict(data=1, fsdp=8))), small.topology()
    )
    assert cut.bytes_of("optimizer") < compiled.bytes_of("optimizer") / 6
    assert cut.flops == compiled.flops


@pytest.mark.parametrize("op", ["onehot", "multihot"])
def test_labels_that_the_pipeline_makes_rows_are_planned_as_rows(op, monkeypatch):
    seen = {}

    def lowered_only(lowered, name):
        seen.update(lowered.in_avals[0][1])
        return None, conftest.REFUSAL

    monkeypatch.setattr(compiling, "_compiled", lowered_only)
    named, model = f"value_range(-1, 1) | {op}(7)", dict(num_classes=7)
    found = compiling.compile_step(
        small.settings(preprocess=named, model=model, train=dict(loss="sigmoid")), small.topology()
    )
    assert seen["label"].shape == (64, 7) and seen["image"].shape == (64, 16, 16, 3)
    assert not found.classes_assumed


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled():
    with pytest.raises(types.InputError, match="divide evenly over the devices: 12 examples"):
        compiling.compile_step(small.settings(), small.topology(), batch_size=12)


def test_the_settings_of_a_recipe_say_how_many_classes(refusing):
    found = compiling.compile_step(small.settings(data=dict(classes=5)), small.topology())
    assert found.program.model.config.num_classes == 5 and not found.classes_assumed


def test_what_the_compiler_refuses_for_another_reason_is_an_error_in_its_words():
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: no such layout")

    with pytest.raises(types.InputError, match="cannot make this step for v3:2x2: INVALID_ARGUMENT: no such layout"):
        compiling._compiled(Lowered(), "v3:2x2")


@pytest.fixture(scope="module")
def tpu():
    if not HAS_COMPILER:
        pytest.skip("needs the extra `plan`")
    return topologies.describe("v3:2x2")


@pytest.mark.slow
def test_a_step_compiles_for_a_tpu_that_is_not_there(tpu):
    found = compiling.compile_step(small.settings(model=dict(depth=4)), tpu)
    timed = estimate.of(found)
    assert found.fits and found.hardware.platform == "tpu" and found.available_bytes == tpu.chip.memory
    assert timed.cycles > 0 and 0 < timed.roofline <= timed.low <= timed.step_seconds <= timed.high
    reduced = sum(one.bytes for one in timed.collectives if one.kind == "all-reduce")
    assert 2 * found.parameters <= reduced < 6 * found.parameters  # gradients, in bfloat16 or float32, once
    runs, unknown = program_text.walk(*program_text.parse(found.text))
    turns = {run.times for run in runs if run.instruction.opcode == "fusion" and not run.fused}
    assert unknown == [] and turns & {3, 4}  # a scan over 4 layers, or 3 and one peeled off


@pytest.mark.slow
def test_too_large_a_step_is_an_answer_not_a_crash(tpu):
    found = compiling.compile_step(small.settings(), tpu, batch_size=2**22)
    assert not found.fits and found.temporaries > found.available_bytes == 16_621_523_435
    with pytest.raises(types.InputError, match="must fit to be timed"):
        estimate.of(found)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs the extra `plan`")
@pytest.mark.parametrize("name", ["v2:2x2", "v3:2x2", "v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "7x:2x2x1"])
def test_the_memory_of_every_chip_is_what_the_compiler_says(name):
    where = topologies.describe(name)
    lies = jax.sharding.SingleDeviceSharding(where.devices[0])
    large = jax.ShapeDtypeStruct((2**18, 128), jnp.float32)
    lowered = jax.jit(lambda x: jnp.sort(x @ x.T, axis=0) @ x, in_shardings=lies, out_shardings=lies).lower(large)
    executable, message = compiling._compiled(lowered, name)
    assert executable is None
    found = compiling.out_of_memory(message)
    assert found == pytest.approx((512 * GIB, where.chip.memory), rel=0.002)


@pytest.mark.slow
def test_a_mesh_across_slices_sends_over_the_network():
    if not HAS_COMPILER:
        pytest.skip("needs the extra `plan`")
    settings = small.settings(parallel=dict(rules="hybrid", mesh=dict(replica=2, fsdp=4), across=dict(replica=2)))
    timed = estimate.of(compiling.compile_step(settings, "v5e:2x2*2"))
    across = [one for one in timed.collectives if one.across]
    assert across and {one.axes for one in across} == {"replica"}


def test_what_waits_on_the_host_is_not_in_the_memory_of_the_device():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    leaves = [
        jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=where)
        for where in (here, here.with_memory_kind("pinned_host"))
    ]
    assert compiling.device_bytes(leaves) == 8 * 128 * 4


def test_a_batch_must_have_the_parts_it_is_taken_in():
    with pytest.raises(types.InputError, match="train.accumulate must be a divisor of data.batch_size=65: it is 2"):
        compiling.compile_step(small.settings(train=dict(accumulate=2)), small.topology(), batch_size=65)
