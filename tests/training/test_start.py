"""Where a run begins: own checkpoint, resume, init_from, scratch."""

import jax
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.training import checkpoint, start
from transformer_jax.training import state as states

from . import small_run


def begun(directory, **options):
    said = []
    checkpointer = checkpoint.Checkpointer(directory, stacks=small_run.STACKS)
    wanted = small_run.abstract(small_run.fresh())
    result = start.begin(checkpointer, wanted, fresh=small_run.fresh, say=said.append, **options)
    assert len(said) == 1, "one line says where the run begins"
    return result, said[0]


def saved(directory, step):
    checkpointer = checkpoint.Checkpointer(directory, stacks=small_run.STACKS)
    moved = jax.tree.map(lambda x: x + x.dtype.type(step), small_run.fresh())
    checkpointer.save(moved, states.Clock(step, step * 8))
    checkpointer.close()
    return moved


def warmed(state):
    return states.TrainState(
        state.step, jax.tree.map(lambda x: x + 1, state.params), state.optimizer, state.average, state.key
    )


def test_its_own_checkpoint_comes_first(tmp_path):
    own = saved(tmp_path / "own", 3)
    saved(tmp_path / "other", 9)
    result, line = begun(tmp_path / "own", resume=str(tmp_path / "other"), init_from=warmed)
    assert result.origin == "own" and result.clock == states.Clock(3, 24)
    np.testing.assert_array_equal(result.state.key, own.key)
    assert "Continuing at step 3, example 24" in line and str(tmp_path / "own") in line


def test_then_the_run_named_by_resume_with_everything(tmp_path):
    other = saved(tmp_path / "other", 9)
    result, line = begun(tmp_path / "own", resume=tmp_path / "other", init_from=warmed)
    assert result.origin == "resume" and result.clock.step == 9
    jax.tree.map(np.testing.assert_array_equal, result.state, other)
    assert str(tmp_path / "other") in line


def test_then_weights_at_step_0_with_a_new_optimizer(tmp_path):
    result, line = begun(tmp_path, init_from=warmed, source="ViT-B/16.npz")
    fresh = small_run.fresh()
    assert result.origin == "init_from" and result.clock == states.Clock() and int(result.state.step) == 0
    jax.tree.map(np.testing.assert_array_equal, result.state.optimizer, fresh.optimizer)
    np.testing.assert_array_equal(result.state.params["head"]["bias"], fresh.params["head"]["bias"] + 1)
    assert line == "Starting at step 0 with the weights of ViT-B/16.npz."


def test_then_scratch(tmp_path):
    result, line = begun(tmp_path)
    assert result.origin == "scratch" and line == "Starting at step 0 from scratch."


def test_required_fails_when_there_is_nothing(tmp_path):
    (tmp_path / "7").mkdir()  # incomplete: it does not count, and it is not deleted
    with pytest.raises(types.InputError, match="resume='required' needs a checkpoint to continue from: "):
        begun(tmp_path, resume="required")
    assert (tmp_path / "7").is_dir()


def test_required_continues_when_there_is_something(tmp_path):
    saved(tmp_path, 3)
    assert begun(tmp_path, resume="required")[0].clock.step == 3


def test_when_every_checkpoint_was_corrupt_no_later_start_is_silently_from_scratch(tmp_path):
    saved(tmp_path, 3)
    (tmp_path / "3" / "meta" / "metadata").write_text("{}")
    with pytest.warns(UserWarning, match="3 is corrupt"), pytest.raises(types.InputError, match="has none left"):
        begun(tmp_path)
    with pytest.raises(types.InputError, match="does not start over by itself: .* has 3.corrupt"):
        begun(tmp_path)
    assert begun(tmp_path, resume="never")[0].origin == "scratch"


def test_never_fails_when_there_is_something(tmp_path):
    saved(tmp_path, 3)
    with pytest.raises(types.InputError, match="resume='never' needs a run directory without checkpoints: .* step 3"):
        begun(tmp_path, resume="never")


def test_a_path_without_a_checkpoint_is_an_error_not_a_start_from_scratch(tmp_path):
    with pytest.raises(types.InputError, match="is not a folder"):
        begun(tmp_path, resume=str(tmp_path / "typo"))
