"""Worker processes and the script that starts them."""

import os
import subprocess
import sys

import pytest

from transformer_jax.data import spawning

SCRIPT = """
from transformer_jax.data import pipeline, sources

def work():
    pipe = pipeline.Train(sources.open_source("digits"), "value_range(-1, 1)", batch_size=4, seed=0, workers=1)
    stream = pipe.batches(0)
    print("labels", next(stream)["label"].shape)
    stream.close()

"""


def run(tmp_path, end):
    (tmp_path / "script.py").write_text(SCRIPT + end)
    command = [sys.executable, str(tmp_path / "script.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=dict(os.environ, PYTHONPATH="."))


def test_without_a_main_guard_it_is_an_error_and_not_a_hang(tmp_path):
    result = run(tmp_path, "work()\n")
    assert result.returncode == 1
    assert "Put what line 10 of" in result.stderr and '`if __name__ == "__main__":`' in result.stderr


@pytest.mark.slow
def test_with_a_main_guard_it_works(tmp_path):
    result = run(tmp_path, 'if __name__ == "__main__":\n    work()\n')
    assert result.returncode == 0, result.stderr
    assert result.stdout == "labels (4,)\n"


ORPHANS = """
import multiprocessing, os, signal, sys, time
from transformer_jax.data import spawning

def work(ready):
    spawning.follow(0, 1)
    ready.set()
    time.sleep(300)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    context.Process(target=work, args=(ready,), daemon=True).start()
    ready.wait()
    {end}
"""


@pytest.mark.parametrize("end, code", [("os._exit(75)", 75), ("os.kill(os.getpid(), signal.SIGKILL)", -9)])
def test_a_worker_ends_with_a_parent_that_had_no_time_to_end_it(tmp_path, end, code):
    """`run` returns when nobody holds the output any more."""
    (tmp_path / "script.py").write_text(ORPHANS.replace("{end}", end))
    command = [sys.executable, str(tmp_path / "script.py")]
    result = subprocess.run(command, capture_output=True, timeout=100, env=dict(os.environ, PYTHONPATH="."))
    assert result.returncode == code, result.stderr


@pytest.mark.slow
def test_the_workers_of_a_stream_end_with_a_process_that_is_killed(tmp_path):
    end = """
if __name__ == "__main__":
    import os, signal
    pipe = pipeline.Train(sources.open_source("digits"), "value_range(-1, 1)", batch_size=4, seed=0, workers=2)
    stream = pipe.batches(0)
    next(stream)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(tmp_path, end).returncode == -9


@pytest.mark.slow
def test_a_guarded_script_may_work_in_a_process_it_spawned(tmp_path):
    end = """
if __name__ == "__main__":
    import multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
"""
    result = run(tmp_path, end)
    assert result.returncode == 0 and result.stdout == "labels (4,)\n", result.stderr


@pytest.mark.parametrize(
    ("text", "line", "guarded"),
    [
        ("if __name__ == '__main__':\n    work()\n", 2, True),
        ("try:\n    if '__main__' == __name__:\n        work()\nfinally:\n    pass\n", 3, True),
        ("if True:\n    work()\n", 2, False),
        ("work()\nif __name__ == '__main__':\n    pass\n", 1, False),
        ("this is no Python", 1, True),
    ],
)
def test_a_guard_is_an_if_that_asks_for_the_name(tmp_path, text, line, guarded):
    (tmp_path / "script.py").write_text(text)
    assert spawning._guarded(str(tmp_path / "script.py"), line) is guarded
