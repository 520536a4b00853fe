"""One run in a directory, which all of its processes see."""

import pytest

from transformer_jax import types
from transformer_jax.experiment import rundir
from transformer_jax.parallel import multihost


def test_a_second_run_is_refused(tmp_path):
    with rundir.alone(tmp_path), pytest.raises(types.InputError, match="One run trains in a run directory: another"):
        with rundir.alone(tmp_path):
            pass
    with rundir.alone(tmp_path):
        pass


@pytest.fixture
def two(monkeypatch):
    """This is process 0 of two; what the other one answers is left in the list."""
    answers = []
    monkeypatch.setattr(multihost, "count", lambda: 2)
    monkeypatch.setattr(multihost, "broadcast", lambda own: own)
    monkeypatch.setattr(multihost, "gather", lambda own: [own, *answers])
    return answers


def test_a_directory_that_a_process_does_not_see_is_an_error_that_names_it(tmp_path, two):
    two.append([False, "worker-1", "/scratch/run"])
    with pytest.raises(types.InputError, match=r"is not seen by process 1 on worker-1 \(/scratch/run\)"):
        with rundir.alone(tmp_path):
            pass
    two[:] = [[True, "worker-1", str(tmp_path)]]
    with rundir.alone(tmp_path):
        assert not (tmp_path / rundir.TOKEN).exists()


def test_bad_images_are_summed_over_processes_that_read_different_ones(two):
    two[:] = [[1, 4]]
    assert rundir._everywhere(0, 3) == 7
    two[:] = [[0, 1]]  # the same images; it does not know what was before the run was continued
    assert rundir._everywhere(0, 3) == 3
