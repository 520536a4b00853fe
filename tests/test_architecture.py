"""The shape of the house (DESIGN.md) is a test."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_row_imports_only_from_rows_below_it():
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_takes_no_time_and_help_answers_at_once():
    code = "import time; t = time.perf_counter(); import transformer_jax; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.05
    waits = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "transformer_jax", "--help"], capture_output=True, check=True)
        waits.append(time.perf_counter() - start)
    assert min(waits) < 1.0


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, transformer_jax; print([m for m in ('jax', 'numpy', 'flax', 'tensorflow') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_worker_processes_that_read_data_do_not_load_jax():
    code = "import sys\nfrom transformer_jax.data import folder, glyphs, pipeline, tfds\nprint('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
