"""Checkpoints: what comes back is what was saved, or an error that says what is not."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer_jax import types
from transformer_jax.training import checkpoint, storage
from transformer_jax.training import state as states

from . import small_run

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_v1"


def made(directory, **options):
    return checkpoint.Checkpointer(directory, stacks=small_run.STACKS, meta={"classes": {"model": "vit"}}, **options)


def saved(directory, *steps, scores=None, state=None, **options):
    """A folder with these steps in it, all of the same state."""
    checkpointer = made(directory, keep_last=options.pop("keep_last", len(steps)), **options)
    state = state or small_run.fresh()
    for step in steps:
        score = {} if scores is None else {"val/top1": scores[step]}
        checkpointer.save(state, states.Clock(step, step * 8, True), score)
    checkpointer.close()
    return state


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_state_comes_back_exactly_with_its_clock_and_meta(tmp_path):
    state = saved(tmp_path, 7, scores={7: 0.5})
    again, clock, meta = made(tmp_path).restore(small_run.abstract(state))
    same(again, state)
    assert clock == states.Clock(7, 56, True)
    assert meta["classes"] == {"model": "vit"} and meta["metrics"] == {"val/top1": 0.5}
    assert meta["format_version"] == 1 and meta["digest"].keys() == meta["leaves"].keys()


def test_leaves_lie_under_plain_paths_one_a_layer(tmp_path):
    saved(tmp_path, 1)
    leaves, meta = checkpoint.load_leaves(tmp_path)
    assert leaves.keys() == meta["leaves"].keys()
    assert {
        "step",
        "key",
        "params/blocks/0/mlp/kernel",
        "params/blocks/1/mlp/kernel",
        "average/head/bias",
        "optimizer/0/mu/blocks/1/mlp/kernel",
    } <= leaves.keys()
    assert leaves["params/blocks/0/mlp/kernel"].shape == (6, 6)


def test_the_step_may_donate_what_is_being_saved(tmp_path):
    state, step = small_run.fresh(), small_run.train_step()
    before = jax.tree.map(np.array, state)
    checkpointer = made(tmp_path)
    checkpointer.save(state, states.Clock(1))
    batch = {name: value for name, value in next(small_run.batches(0)).items() if name != "_id"}
    for _ in range(5):
        state, _ = step(state, batch, jnp.float32(0.1))
    checkpointer.close()
    again, _, _ = made(tmp_path).restore(small_run.abstract(small_run.fresh()))
    same(again, before)


def sharded(state, devices):
    """The state on a mesh, its matrices split."""
    mesh = jax.make_mesh((devices,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def split(leaf):
        splits = [axis for axis, size in enumerate(leaf.shape) if axis and size % devices == 0]
        spec = [("fsdp" if axis == splits[-1:] else None) for axis in range(leaf.ndim)]
        if splits:
            spec[splits[-1]] = "fsdp"
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(split, state)


@pytest.mark.parametrize("spread", [False, True], ids=["one process", "as many processes"])
@pytest.mark.parametrize(("before", "after"), [(6, 2), (2, 3), (1, 6)])
def test_a_state_comes_back_on_another_mesh(tmp_path, before, after, spread):
    state = saved(tmp_path, 1, state=sharded(small_run.fresh(), before), spread=spread)
    target = sharded(small_run.fresh(), after)
    again, _, _ = made(tmp_path, spread=spread).restore(small_run.abstract(target))
    same(again, state)
    assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(target), strict=True))


def test_one_process_and_many_write_the_same_checkpoint(tmp_path):
    state = sharded(small_run.fresh(), 2)
    saved(tmp_path / "one", 1, state=state, spread=False)
    saved(tmp_path / "many", 1, state=state, spread=True)
    one, meta_one = checkpoint.load_leaves(tmp_path / "one")
    many, meta_many = checkpoint.load_leaves(tmp_path / "many")
    same(one, many)
    assert meta_one == meta_many


@pytest.mark.parametrize("where", [".", "checkpoints", "checkpoints/2"])
def test_parameters_load_from_a_run_its_checkpoints_or_one_step(tmp_path, where, monkeypatch):
    state = saved(tmp_path / "run" / "checkpoints", 1, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "run" / where, pathlib.Path("run") / where, f"~/run/{where}"):
        flat, meta = checkpoint.load_params(path)
        assert meta["step"] == 2
        np.testing.assert_array_equal(flat["blocks/1/mlp/kernel"], state.params["blocks"]["mlp"]["kernel"][1])
    average, _ = checkpoint.load_params(tmp_path / "run", average=True)
    assert average.keys() == flat.keys()


def test_parameters_saved_on_a_mesh_load_where_there_is_one_device(tmp_path):
    state = saved(tmp_path, 1, state=sharded(small_run.fresh(), 6), spread=True)
    script = (
        "import sys, jax, numpy as np; from transformer_jax.training import checkpoint;"
        "flat, _ = checkpoint.load_params(sys.argv[1]); assert jax.device_count() == 1;"
        "np.save(sys.argv[2], flat['blocks/1/mlp/kernel'])"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path, tmp_path / "x.npy"], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), state.params["blocks"]["mlp"]["kernel"][1])


def test_a_place_without_a_checkpoint_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(types.InputError, match=r"holds \['notes.txt'\]"):
        checkpoint.load_params(tmp_path)
    with pytest.raises(types.InputError, match="is not a folder"):
        checkpoint.load_params(tmp_path / "nowhere")


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.4, 4: 0.5, 5: 0.3}
    checkpointer = made(tmp_path, keep_last=2, keep_best=("val/top1", "max"))
    state = small_run.fresh()
    for step, score in scores.items():
        checkpointer.save(state, states.Clock(step), {"val/top1": score})
    checkpointer.save(state, states.Clock(6))  # not evaluated: never the best
    checkpointer.close()
    assert checkpointer.steps() == [6, 5, 2]
    assert checkpointer.best() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6"]


def test_the_best_of_an_earlier_process_is_still_the_best(tmp_path):
    saved(tmp_path, 1, 2, scores={1: 0.1, 2: 0.7}, keep_best=("val/top1", "min"))
    checkpointer = made(tmp_path, keep_last=1, keep_best=("val/top1", "min"))
    checkpointer.save(small_run.fresh(), states.Clock(3), {"val/top1": 0.5})
    checkpointer.close()
    assert checkpointer.steps() == [3, 1]


def test_a_step_is_not_saved_twice(tmp_path):
    state = saved(tmp_path, 4)
    checkpointer = made(tmp_path)
    with pytest.raises(types.InputError, match="A step is saved once: 4 is already in"):
        checkpointer.save(state, states.Clock(4))


def test_empty_and_partial_folders_are_passed_over_and_left(tmp_path):
    state = saved(tmp_path, 2)
    (tmp_path / "9").mkdir()
    shutil.copytree(tmp_path / "2", tmp_path / "8")
    (tmp_path / "8" / "commit_success.txt").unlink()
    (tmp_path / "10.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    checkpointer = made(tmp_path, keep_last=1)
    _, clock, _ = checkpointer.restore(small_run.abstract(state))
    assert clock.step == 2
    for step in (8, 9, 10):
        checkpointer.save(state, states.Clock(step))
    checkpointer.close()
    # What stood in the way of a step is renamed; Orbax clears its own temporary folder of that step.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "8.stray", "9.stray"]


def flip(path: pathlib.Path, rng) -> None:
    raw = bytearray(path.read_bytes())
    bit = int(rng.integers(len(raw) * 8))
    raw[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(bytes(raw))


def data_files(step: pathlib.Path) -> list[pathlib.Path]:
    """Files with numbers in them. Of small leaves Orbax leaves a second, unread copy in ocdbt.process_0."""
    merged = [path for path in (step / "state" / "d").rglob("*") if path.is_file()]
    written = [path for path in (step / "state" / "ocdbt.process_0" / "d").rglob("*") if path.stat().st_size > 50_000]
    return sorted(merged + written)


def test_twenty_of_twenty_flipped_bits_are_found(tmp_path):
    large = jax.random.normal(jax.random.key(3), (2, 150, 200))
    params = {"blocks": {"mlp": {"kernel": large}}, "head": {"bias": jnp.arange(30.0)}}
    state = states.create(params, small_run.optimizer(), key=jax.random.key(0))
    saved(tmp_path / "good", 1, 2, state=state)
    rng, found = np.random.default_rng(0), 0
    for trial in range(20):
        place = tmp_path / str(trial)
        shutil.copytree(tmp_path / "good", place)
        files = data_files(place / "2")
        flip(files[trial % len(files)], rng)
        with pytest.warns(UserWarning, match="2 is corrupt"):
            again, clock, _ = made(place).restore(small_run.abstract(state))
        found += clock.step == 1 and (place / "2.corrupt").exists()
        same(again, state)
    assert found == 20


def test_a_wrong_number_is_named_by_its_leaf(tmp_path):
    state = saved(tmp_path, 1, 2)
    meta = tmp_path / "2" / "meta" / "metadata"
    content = json.loads(meta.read_text())
    content["digest"]["params/head/kernel"] ^= 1
    meta.write_text(json.dumps({**content, "seal": storage.seal(content)}))
    with pytest.warns(UserWarning, match="params/head/kernel are not the ones that were saved"):
        _, clock, _ = made(tmp_path).restore(small_run.abstract(state))
    assert clock.step == 1


@pytest.mark.parametrize("damage", ["truncate", "remove", "meta"])
def test_a_damaged_step_is_set_aside_and_the_older_one_taken(tmp_path, damage):
    state = saved(tmp_path, 1, 2)
    if damage == "meta":
        flip(tmp_path / "2" / "meta" / "metadata", np.random.default_rng(1))
    for path in data_files(tmp_path / "2"):
        if damage == "truncate":
            os.truncate(path, path.stat().st_size // 2)
        elif damage == "remove":
            path.unlink()
    with pytest.warns(UserWarning, match="2 is corrupt"):
        again, clock, _ = made(tmp_path).restore(small_run.abstract(state))
    assert clock.step == 1 and made(tmp_path).steps() == [1]
    assert (tmp_path / "2.corrupt").is_dir()
    same(again, state)


def test_loading_from_another_run_renames_nothing_and_takes_the_older_step(tmp_path):
    saved(tmp_path, 1, 2)
    for path in data_files(tmp_path / "2"):
        path.unlink()
    with pytest.warns(UserWarning, match="Looking for an older one"):
        _, meta = checkpoint.load_params(tmp_path)
    assert meta["step"] == 1 and (tmp_path / "2").is_dir()


@pytest.mark.filterwarnings("ignore:Checkpoint")
def test_when_no_good_one_is_left_the_error_names_them(tmp_path):
    state = saved(tmp_path, 1, 2)
    for step in "12":
        flip(tmp_path / step / "meta" / "metadata", np.random.default_rng(1))
    with pytest.raises(types.InputError, match="has none left .step 2: its meta data .*step 1:"):
        made(tmp_path).restore(small_run.abstract(state))


def renamed(params):
    params["head"]["weight"] = params["head"].pop("kernel")


def reshaped(params):
    params["head"]["kernel"] = jnp.zeros((6, 5))


def recast(params):
    params["head"]["kernel"] = params["head"]["kernel"].astype(jnp.bfloat16)


def deeper(params):
    params["blocks"]["mlp"]["kernel"] = jnp.zeros((3, 6, 6))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            renamed,
            "params/head/weight: absent in the checkpoint, float32[6, 3] in this run. Did you mean 'params/head/k",
        ),
        (renamed, "params/head/kernel: float32[6, 3] in the checkpoint, absent in this run."),
        (reshaped, "params/head/kernel: float32[6, 3] in the checkpoint, float32[6, 5] in this run."),
        (recast, "params/head/kernel: float32[6, 3] in the checkpoint, bfloat16[6, 3] in this run."),
        (deeper, "params/blocks/2/mlp/kernel: absent in the checkpoint, float32[6, 6] in this run."),
    ],
)
def test_another_structure_is_an_error_path_by_path(tmp_path, change, expected):
    saved(tmp_path, 1)
    other = small_run.fresh()
    change(other.params)
    depth = other.params["blocks"]["mlp"]["kernel"].shape[0]
    with pytest.raises(types.InputError) as caught:
        checkpoint.Checkpointer(tmp_path, stacks={"blocks": depth}).restore(small_run.abstract(other))
    assert expected in str(caught.value)
    assert made(tmp_path).steps() == [1], "a checkpoint of another model is not corrupt"


def test_a_newer_format_is_refused_in_words(tmp_path):
    state = saved(tmp_path, 1)
    path = tmp_path / "1" / "meta" / "metadata"
    meta = json.loads(path.read_text()) | {"format_version": 2}
    path.write_text(json.dumps({**meta, "seal": storage.seal(meta)}))
    with pytest.raises(types.InputError, match="format_version 2, this package reads up to 1"):
        made(tmp_path).restore(small_run.abstract(state))


def test_a_failed_save_is_an_error_of_the_next_wait(tmp_path, monkeypatch):
    checkpointer = made(tmp_path)
    checkpointer.save(small_run.fresh(), states.Clock(1))
    checkpointer.wait()
    writer = checkpointer._writer
    monkeypatch.setattr(
        writer._orbax, "_make_on_commit_callback", lambda *args: lambda: (_ for _ in ()).throw(OSError("disk full"))
    )
    checkpointer.save(small_run.fresh(), states.Clock(2))
    with pytest.raises(OSError, match="disk full"):
        checkpointer.wait()
    assert checkpointer.steps() == [1]


@pytest.mark.parametrize(
    ("options", "message"), [({"keep_last": 0}, "at least 1"), ({"keep_best": ("a", "up")}, "'max'")]
)
def test_bad_settings_are_refused(tmp_path, options, message):
    with pytest.raises(types.InputError, match=message):
        made(tmp_path, **options)


def test_a_checkpoint_of_format_1_loads_forever():
    """tests/golden/checkpoint_v1 was written by the first version; no change may make it unreadable."""
    flat, meta = checkpoint.load_params(GOLDEN)
    assert meta["format_version"] == 1 and meta["step"] == 3 and meta["examples"] == 24
    np.testing.assert_array_equal(flat["blocks/1/mlp/kernel"], np.arange(36, 72, dtype=np.float32).reshape(6, 6))
    again, clock, _ = made(GOLDEN).restore(small_run.abstract(small_run.fresh()))
    np.testing.assert_array_equal(again.params["blocks"]["mlp"]["kernel"], np.arange(72).reshape(2, 6, 6))
    assert clock == states.Clock(3, 24, True)


def test_a_save_blocks_only_briefly(tmp_path):
    checkpointer, state = made(tmp_path), small_run.fresh()
    checkpointer.save(state, states.Clock(1))
    checkpointer.wait()
    start = time.thread_time()
    checkpointer.save(state, states.Clock(2))
    assert time.thread_time() - start < 0.3
    checkpointer.close()
