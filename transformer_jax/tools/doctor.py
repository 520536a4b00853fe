"""Is this machine able to train? Versions, devices and four small checks, made to be pasted into a report."""

import importlib.metadata
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.nn import kernels
from transformer_jax.parallel import devices

PACKAGES = "transformer-jax jax jaxlib flax optax orbax-checkpoint grain tensorflow-datasets numpy".split()


def examine(workdir: str) -> tuple[list[str], bool]:
    """The report's lines, and whether every check passed."""
    lines = [f"python {platform.python_version()} on {platform.platform()}", f"executable {sys.executable}"]
    lines += [f"{name} {_version(name)}" for name in PACKAGES]
    lines += [f"device {d.id}: {d.platform} {d.device_kind}" for d in jax.devices()]
    checks: dict[str, Callable[[], str]] = {
        "accelerator": _accelerator,
        "matmul": _matmul,
        "attention": _attention,
        f"write to {workdir}": lambda: _write(Path(workdir).expanduser()),
    }
    healthy = True
    for name, check in checks.items():
        try:
            lines.append(f"ok    {name}: {check()}")
        except Exception as error:  # a doctor reports every failure and goes on
            healthy = False
            lines.append(f"FAIL  {name}: {type(error).__name__}: {error}")
    return lines, healthy


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _accelerator() -> str:
    devices.check_backend()
    return f"running on {jax.default_backend()}"


def _matmul() -> str:
    x = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    multiply = jax.jit(lambda a: a @ a)
    error = float(np.abs(np.asarray(multiply(x)) - x @ x).max())
    if error > 1.0:  # TF32 and bfloat16 passes stay below this for 512 terms of unit variance
        raise ArithmeticError(f"a 512 x 512 product is off by {error:.2g}")
    start = time.perf_counter()
    multiply(x).block_until_ready()
    return f"512 x 512 in {1e3 * (time.perf_counter() - start):.2f} ms, largest error {error:.1e}"


def _attention() -> str:
    q = jax.random.normal(jax.random.key(0), (1, 16, 2, 8))
    out = kernels.attend(q, q, q)
    weights = jax.nn.softmax(jnp.einsum("bqhe,bkhe->bhqk", q, q) / np.sqrt(8), axis=-1)
    error = float(jnp.abs(out - jnp.einsum("bhqk,bkhe->bqhe", weights, q)).max())
    if error > 1e-2:
        raise ArithmeticError(f"attention is off by {error:.2g}")
    return f"largest error {error:.1e}"


def _write(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"0" * 2**20)
        file.flush()
    return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB free"
