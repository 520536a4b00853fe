"""Worker processes and the script that starts them."""

import os
import subprocess
import sys

import pytest

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
    assert "put what line 10 of" in result.stderr and '`if __name__ == "__main__":`' in result.stderr


@pytest.mark.slow
def test_with_a_main_guard_it_works(tmp_path):
    result = run(tmp_path, 'if __name__ == "__main__":\n    work()\n')
    assert result.returncode == 0, result.stderr
    assert result.stdout == "labels (4,)\n"
