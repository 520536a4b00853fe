"""Whether this process is one of several, from environment variables alone: nothing is imported, asked or waited for.

Where a scheduler is recognised, `jax.distributed`'s own detection finds the addresses; here is only what decides
whether to ask it.
"""

import dataclasses
import os
import re
from collections.abc import Mapping

from transformer_jax import types

AUTO, OFF = "auto", "off"
VARIABLE = "TRANSFORMER_JAX_PROCESSES"
FORMAT = "auto, off, or HOST:PORT,COUNT,INDEX with the address of process 0"

Environment = Mapping[str, str]


class PeerLost(RuntimeError):
    """Another process did not come, or went away. The message names it and how long it was waited for."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where process 0 is reached, and which of the processes this is."""

    address: str
    """HOST:PORT."""
    count: int
    index: int
    local_devices: tuple[int, ...] | None = None
    """The accelerators of this machine that are this process's; `None`: all."""

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def parse(how: str) -> Place | None:
    """HOST:PORT,COUNT,INDEX as a place; `None` for `auto` and `off`. Raises `InputError`."""
    if how in (AUTO, OFF):
        return None
    found = re.fullmatch(r"(\S+:(\d{1,5})),(\d+),(\d+)", how.strip())
    if not found or not 0 < int(found[2]) < 2**16:
        raise types.InputError(f"--processes (or {VARIABLE}) must be {FORMAT}: {how!r} is not.")
    count, index = int(found[3]), int(found[4])
    if index >= count:
        raise types.InputError(
            f"--processes (or {VARIABLE}) counts from 0: there is no process {index} of {count}."
            f" Give each its own index, 0 to {max(count - 1, 0)}."
        )
    return Place(found[1], count, index)


def cluster(environ: Environment = os.environ) -> str | None:
    """The scheduler that started this process as one of several, in the order `jax.distributed` asks them."""
    if _number(environ, "OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if all(name in environ for name in _SLURM) and _number(environ, "SLURM_NTASKS") > 1:
        return "Slurm"
    if "TPU_SKIP_MDS_QUERY" not in environ and _on_tpu(environ):
        return "TPU VM"
    if len(_tpu_hosts(environ)) > 1 or _number(environ, "MEGASCALE_NUM_SLICES") > 1:
        return "GKE"
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ and not _tpu_hosts(environ):
        return "Kubernetes"
    return None


def alone_in_a_job(environ: Environment = os.environ) -> str | None:
    """A warning where Slurm has several tasks for this job but did not start this process as one of them."""
    tasks = _number(environ, "SLURM_NTASKS")
    if tasks < 2 or "SLURM_STEP_NODELIST" in environ:
        return None
    return (
        f"Slurm gave this job {tasks} tasks, but this process was not started by srun: it runs alone."
        " Put srun before the command, or say --processes=off."
    )


def hosts(environ: Environment, count: int) -> list[str]:
    """The machine of every process as far as the scheduler says; empty where it does not."""
    names = _tpu_hosts(environ)
    if not names and "SLURM_STEP_NODELIST" in environ:
        names = expand(environ["SLURM_STEP_NODELIST"])
    if not names or count % len(names) or _number(environ, "MEGASCALE_NUM_SLICES") > 1:
        return []
    return [names[index * len(names) // count] for index in range(count)]  # tasks fill one node after the other


def expand(nodes: str) -> list[str]:
    """Slurm's `gpu[01-03,7],login` as names."""
    names = []
    for prefix, inside, suffix in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?([^,\[]*)", nodes):
        for part in inside.split(",") if inside else [""]:
            first, _, last = part.partition("-")
            span = range(int(first), int(last or first) + 1) if part else [None]
            names += [f"{prefix}{'' if n is None else str(n).zfill(len(first))}{suffix}" for n in span]
    return names


def local_devices(environ: Environment, local_index: int | None) -> tuple[int, ...] | None:
    """Which accelerators a task takes: one, by its index on the machine, as `jax.distributed` does.

    All that it sees where it was told so (`JAX_LOCAL_DEVICE_IDS`) or where the scheduler shows every task its own only.
    """
    if given := environ.get("JAX_LOCAL_DEVICE_IDS"):
        return tuple(int(number) for number in given.split(","))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if local_index is None or (visible is not None and len(visible.split(",")) <= local_index):
        return None
    return (local_index,)


_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


def _on_tpu(environ: Environment) -> bool:
    """Whether importing JAX found TPU chips and their library (it says so in the environment), and they are wanted."""
    wanted = environ.get("JAX_PLATFORMS", "")
    return "TPU_ML_PLATFORM" in environ and (not wanted or "tpu" in wanted.split(",")) and not _tpu_hosts(environ)


def _tpu_hosts(environ: Environment) -> list[str]:
    """The workers of a slice on GKE."""
    wanted = environ.get("JAX_PLATFORMS", "")
    if wanted and "tpu" not in wanted.split(","):
        return []
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    return [name for name in names.split(",") if name]


def _number(environ: Environment, name: str) -> int:
    value = environ.get(name, "")
    return int(value) if value.isdigit() else 0
