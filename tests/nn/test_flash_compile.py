"""Attention compiled for TPUs that are not here: the kernel is in the program and needs less memory than XLA's.

In its own process, with a Python that has libtpu: TRANSFORMER_JAX_TPU_PYTHON, or the one that runs the tests.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # compiling is slow on a busy machine

SCRIPT = pathlib.Path(__file__).with_name("compile_attention.py")
ROOT = SCRIPT.parents[2]


def python_with_libtpu():
    python = os.environ.get("TRANSFORMER_JAX_TPU_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import libtpu, jax"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{python} has no libtpu: install the extra `plan`, or set TRANSFORMER_JAX_TPU_PYTHON")
    return python


def compiled(*cases):
    """One JSON object a case: `topology length head_dim kind [back ends]`."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "PYTHONPATH": str(ROOT)}
    command = [python_with_libtpu(), str(SCRIPT), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, timeout=800, cwd=ROOT)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_splash_is_in_the_program_and_needs_less_memory_than_xla():
    """Forward and backward, bfloat16, batch and heads over four chips."""
    rows = compiled("v5e:2x2 2048 64 plain", "v6e:2x2 2049 80 padding", "v4:2x2x1 1370 64 causal")
    assert [row["auto"]["kernels"] for row in rows] == [3] * 3, (
        "forward, gradient of queries, gradient of keys and values"
    )
    assert all(row["xla"]["kernels"] == 0 for row in rows)
    assert all(row["auto"]["temporaries"] < 0.5 * row["xla"]["temporaries"] for row in rows)


def test_xla_stays_where_splash_is_not_or_is_not_worth_it():
    rows = compiled("v5e:2x2 257 80 plain auto", "v3:2x2 1370 64 plain auto")
    assert [row["auto"]["kernels"] for row in rows] == [0, 0]


def test_sequence_parallel_attention_is_compiled_with_one_gather_each_of_keys_and_values():
    (row,) = compiled("v5e:2x2 2048 64 sequence auto")
    assert row["auto"]["kernels"] == 3
    assert row["auto"]["gathered"] == 2 * 4 * 2048 * 16 * 64 * 2, "bytes of keys and values, forward alone"
