"""Which devices there are, and whether JAX found the ones this machine has."""

import os
import shutil
import subprocess
from collections.abc import Mapping

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


def check_tasks(environ: Mapping[str, str], *, tasks: int, seen: int, host: str) -> None:
    """`InputError` when the `tasks` processes of a machine take fewer GPUs than it has for them; each sees `seen`.

    JAX gives every task of Slurm and Open MPI one GPU: a single task on a node of eight uses one of them, silently.
    """
    given = environ.get("SLURM_GPUS_ON_NODE", "")
    hidden = "CUDA_VISIBLE_DEVICES" in environ or "JAX_LOCAL_DEVICE_IDS" in environ
    if given.isdigit():
        there, source = int(given), "SLURM_GPUS_ON_NODE"
    else:
        there, source = (0 if hidden else len(nvidia_gpus())), "nvidia-smi"
    if tasks * seen >= there:
        return
    every = ",".join(str(number) for number in range(there))
    raise types.InputError(
        f"The tasks of a node must take all of its GPUs: {host} has {there} ({source}), its"
        f" {tasks} task{'s' if tasks > 1 else ''} {'take' if tasks > 1 else 'takes'} {tasks * seen}. Start one task a"
        f" GPU with --ntasks-per-node={there} (srun, sbatch; mpirun: --npernode {there}), or give one task all of them:"
        f" --ntasks-per-node=1 and JAX_LOCAL_DEVICE_IDS={every}."
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
