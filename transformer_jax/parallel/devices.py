"""Which devices there are, and whether JAX found the ones this machine has."""

import os
import shutil
import subprocess

import jax

from transformer_jax import types


def check_backend() -> None:
    """`InputError` when this machine has a GPU but JAX runs on the CPU without having been told to.

    An accelerator that stays idle is the costliest silent failure of all: set `JAX_PLATFORMS=cpu` to mean it.
    """
    wanted = os.environ.get("JAX_PLATFORMS", "") or (getattr(jax.config, "jax_platforms", None) or "")
    if jax.default_backend() != "cpu" or "cpu" in wanted.split(","):
        return
    gpus = nvidia_gpus()
    if gpus:
        raise types.InputError(
            f"JAX must use the accelerator: nvidia-smi lists {gpus[0]!r} but JAX runs on the CPU."
            " Install its support with EXTRAS=cuda ./launch/local.sh doctor (the extra 'transformer-jax[cuda]'), or set"
            " JAX_PLATFORMS=cpu to mean the CPU."
        )


def nvidia_gpus() -> list[str]:
    """The GPUs `nvidia-smi` lists, by name; none when it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
