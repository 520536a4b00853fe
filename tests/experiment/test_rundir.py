"""One run in a directory, which all of its processes see."""

import errno
import fcntl
import json
import threading
import time

import pytest

from transformer_jax import types
from transformer_jax.experiment import lock, rundir
from transformer_jax.parallel import multihost


def test_a_second_run_is_refused(tmp_path):
    with rundir.alone(tmp_path), pytest.raises(types.InputError, match="One run trains in a run directory: another"):
        with rundir.alone(tmp_path):
            pass
    with rundir.alone(tmp_path):
        pass


def test_a_run_of_this_machine_is_refused_at_once(tmp_path):
    start = time.monotonic()
    with (
        rundir.alone(tmp_path),
        pytest.raises(types.InputError, match=r"\(process \d+ on .*\). Wait for it, or") as error,
    ):
        with rundir.alone(tmp_path):
            pass
    assert time.monotonic() - start < 5 and "delete" not in str(error.value)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A lock in `tmp_path` that a process of another machine holds."""
    with (tmp_path / lock.FILE).open("w") as file:
        json.dump({"machine": "gone", "host": "worker-7", "pid": 12}, file)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(lock, "PATIENCE", 0.5)
        yield file


def test_the_lock_of_another_machine_is_waited_for_and_then_says_whose_it_is(tmp_path, elsewhere, capsys):
    with pytest.raises(types.InputError, match="process 12 on worker-7.*gone for good, delete .*lock"):
        with rundir.alone(tmp_path):
            pass
    assert "is locked by process 12 on worker-7; waiting up to 0.5 s" in capsys.readouterr().err


def test_a_lock_that_is_given_up_meanwhile_is_taken(tmp_path, elsewhere, monkeypatch):
    """As NFS does for a machine that is gone."""
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    threading.Timer(0.2, lambda: fcntl.flock(elsewhere, fcntl.LOCK_UN)).start()
    with rundir.alone(tmp_path):
        assert json.loads((tmp_path / lock.FILE).read_text())["host"] != "worker-7"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, number):
    def fails(*args):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.warns(UserWarning, match="has no locks .No locks available.: see to it"), rundir.alone(tmp_path):
        pass


def test_of_the_numbers_so_far_the_last_ones_are_told(tmp_path, monkeypatch):
    """One value a metric goes to the other processes, however long the run is."""
    lines = [{"step": step, "wall": 1.0, "train/loss": 1 / (step + 1)} for step in range(1000)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [{"step": 0, "val/top1": 0.5}, *lines]))
    told = []
    monkeypatch.setattr(rundir.together, "by_first", lambda work: told.append(work()) or told[0])
    numbers = rundir.Numbers(tmp_path, 999, 1000, quiet=True)
    numbers.close()
    assert told == [{"train/loss": 0.001, "val/top1": 0.5}] and numbers.last == told[0]


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
