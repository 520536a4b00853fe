"""Checkpoints that cannot be read now, or not yet, are no corrupt ones; what processes see differently is agreed on."""

import errno
import pathlib
import shutil
import threading

import numpy as np
import orbax.checkpoint as ocp
import pytest

from transformer_jax.parallel import multihost
from transformer_jax.training import exits, failures, storage
from transformer_jax.training import state as states

from . import small_run
from .test_checkpoint import data_files, made, saved

UNREACHABLE = (
    'ABORTED: Error opening "zarr" driver: Error reading "key/.zarray": NOT_FOUND: Failed to read 115 bytes from file:'
    " Stale file handle [os_error_code='116']"
)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EIO, "Input/output error"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ValueError(UNREACHABLE),
        ValueError("RESOURCE_EXHAUSTED: Too many open files"),
        KeyError("value_metadata"),
        TypeError("restore() got an unexpected keyword argument"),
        AttributeError("module 'orbax' has no attribute 'x'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_read_now_is_not_corrupt(tmp_path, monkeypatch, error):
    """The error comes as it is, and every step stays where it was for the next start."""

    def fails(*args, **options):
        raise error

    state = saved(tmp_path, 1, 2, 3)
    monkeypatch.setattr(ocp.Checkpointer, "restore", fails)
    with pytest.raises(type(error)) as caught:
        made(tmp_path).restore(small_run.abstract(state))
    assert caught.value is error and failures.exit_code(error) == exits.FAILED
    assert made(tmp_path).steps() == [3, 2, 1] and made(tmp_path).corrupt() == []


def test_meta_data_that_cannot_be_read_now_are_not_corrupt(tmp_path, monkeypatch):
    state = saved(tmp_path, 1)

    def stale(path):
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(pathlib.Path, "read_bytes", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        made(tmp_path).restore(small_run.abstract(state))
    assert made(tmp_path).steps() == [1]


@pytest.mark.parametrize("word", ["value_metadata", "key_type", "{"])
def test_a_damaged_description_of_the_arrays_is_found(tmp_path, word):
    state = saved(tmp_path, 1, 2)
    file = tmp_path / "2" / "state" / "_METADATA"
    file.write_text(file.read_text().replace(word, "value_netadata", 1))
    with pytest.warns(UserWarning, match="2 is corrupt"):
        _, clock, _ = made(tmp_path).restore(small_run.abstract(state))
    assert clock.step == 1


def test_a_process_that_sees_a_file_late_waits_for_it(tmp_path, monkeypatch):
    """Another machine has written it a moment ago. After a while it is missing, and the checkpoint corrupt."""
    state = saved(tmp_path, 1)
    leaves = {name: np.empty(()) for name in storage.read_meta(tmp_path / "1")["leaves"]}
    hidden = tmp_path / "later"
    (tmp_path / "1" / "meta").rename(hidden)
    monkeypatch.setattr(multihost, "count", lambda: 2)
    monkeypatch.setattr(storage, "SEEN_WITHIN", 0.5)
    assert not storage.seen(tmp_path / "1")
    with pytest.raises(storage.Missing, match="its meta data is not there"):
        storage.patiently(lambda: storage.read_meta(tmp_path / "1"))
    monkeypatch.setattr(storage, "SEEN_WITHIN", 60.0)
    threading.Timer(0.3, lambda: hidden.rename(tmp_path / "1" / "meta")).start()
    assert storage.patiently(lambda: storage.read_meta(tmp_path / "1"))["step"] == 1
    monkeypatch.setattr(storage, "SEEN_WITHIN", 0.0)
    for file in data_files(tmp_path / "1"):
        file.unlink()
    with pytest.raises(storage.Missing):
        storage.read_leaves(tmp_path / "1", leaves)
    assert int(state.step) == 0


def test_whether_a_step_is_saved_is_known_without_looking(tmp_path):
    """Processes may see different folders; what they have done is the same."""
    state = saved(tmp_path, 1, 2)
    again = made(tmp_path)
    assert not again.has(2)
    again.restore(small_run.abstract(state))
    shutil.rmtree(tmp_path / "2")
    assert again.has(2) and not again.has(1)
    other = made(tmp_path / "other")
    other.restore(small_run.abstract(state), source=tmp_path)
    assert not other.has(1)
    other.save(state, states.Clock(3))
    assert other.has(3) and not other.has(1)
    other.close()
    assert other.has(3)


def test_the_steps_are_those_the_first_process_lists(tmp_path, monkeypatch):
    """The second of two processes sees the newest step later than the first."""
    saved(tmp_path, 1, 2)
    late = made(tmp_path)
    monkeypatch.setattr(multihost, "count", lambda: 2)
    monkeypatch.setattr(multihost, "main", lambda: False)
    monkeypatch.setattr(multihost, "broadcast", lambda own: ([2, 1], None))
    (tmp_path / "2").rename(tmp_path / "later")
    threading.Timer(0.3, lambda: (tmp_path / "later").rename(tmp_path / "2")).start()
    assert late.steps() == [1] and late.agreed() == [2, 1]
    (tmp_path / "2").rename(tmp_path / "later")
    monkeypatch.setattr(storage, "SEEN_WITHIN", 0.1)
    assert late.agreed() == [1], "which is what `peers.require` tells the others"
