"""How several processes end: one code where a restart would not help, whoever a scheduler asks."""

import os
import pathlib
import subprocess
import sys

import pytest

from transformer_jax.cli import together
from transformer_jax.parallel import detection, multihost
from transformer_jax.training import exits


@pytest.fixture
def ended(monkeypatch):
    """The end of the first of two processes, the other of which says that it failed with a code, or nothing."""
    stopped = []

    def end(work, told=None):
        monkeypatch.setattr(multihost, "count", lambda: 2)
        monkeypatch.setattr(multihost, "told_to_end", lambda: told)
        monkeypatch.setattr(multihost, "stop", lambda code, others=None, patience=0.0: stopped.append((code, others)))
        assert together.leave("train", work) == stopped[-1][0]
        return stopped[-1]

    return end


def raises(error):
    raise error


@pytest.mark.parametrize("code", [exits.FAILED, exits.BAD_INPUT, exits.DIVERGED, exits.INTERRUPTED, exits.READER_GONE])
def test_what_a_restart_cannot_mend_is_the_code_of_all(ended, code):
    assert ended(lambda: code) == (code, code)


def test_an_error_nobody_foresaw_is_the_end_of_all(ended, capsys):
    assert ended(lambda: raises(ValueError("a bug"))) == (exits.FAILED, exits.FAILED)
    assert ended(lambda: raises(KeyboardInterrupt())) == (exits.INTERRUPTED, exits.INTERRUPTED)


@pytest.mark.parametrize("work", [lambda: exits.PEER_LOST, lambda: raises(detection.PeerLost("it is gone"))])
@pytest.mark.parametrize("told", [None, exits.FAILED, exits.DIVERGED, exits.PEER_LOST])
def test_who_lost_another_ends_as_that_one_said(ended, work, told):
    """Its collective breaks before the other's last word is read: 134 would start again what failed for good."""
    code = exits.PEER_LOST if told is None else told
    assert ended(work, told) == (code, code)


def test_what_a_restart_may_mend_ends_the_others_as_having_lost_one(ended):
    assert ended(lambda: exits.HUNG) == (exits.HUNG, exits.PEER_LOST)


@pytest.mark.parametrize("code", [exits.OK, exits.PREEMPTED])
def test_an_end_in_order_asks_nothing_of_the_others(ended, code):
    assert ended(lambda: code) == (code, None)


ONE_FAILS = """
import sys, time
import numpy as np
from transformer_jax.cli import together
from transformer_jax.parallel import multihost

def work():
    together.join(None)
    from jax.experimental import multihost_utils
    multihost_utils.process_allgather(np.zeros(1))
    if multihost.index() == 1:
        raise ValueError("a bug of one process")
    multihost_utils.process_allgather(np.zeros(1))  # for ever: it is a collective of the devices
    return 0

if __name__ == "__main__":
    sys.exit(together.leave("train", work))
"""


@pytest.mark.slow
def test_a_bug_on_one_process_is_the_code_of_both(tmp_path):
    launch = pathlib.Path(__file__).parents[2] / "launch"
    (tmp_path / "program.py").write_text(ONE_FAILS)
    script = f"{sys.executable} {tmp_path}/program.py; echo ended with $?"
    environ = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(launch.parent)}
    command = [launch / "processes.sh", "2", "1", "bash", "-c", script]
    found = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110)
    codes = sorted(line for line in found.stdout.splitlines() if "ended with" in line)
    assert codes == ["[0] ended with 1", "[1] ended with 1"], found.stderr
    assert "a bug of one process" in found.stderr
