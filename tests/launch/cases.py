"""What is asked of each launcher in these tests: its variables and arguments, and which variables it needs."""

import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "launch"
TRAIN = ["--config", "experiments/vit/pretrain.py:model=L/16,data=jft", "--workdir", "/runs/l16", "--config.seed=1"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a launcher. `needs` are those of `variables` without which it must refuse."""

    launcher: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    needs: Sequence[str] | None = None

    def required(self) -> Sequence[str]:
        return list(self.variables) if self.needs is None else self.needs


TPU = {"NAME": "l16", "ZONE": "us-west4-a", "ACCELERATOR": "v5litepod-16", "RUNTIME": "v2-alpha-tpuv5-lite"}
GKE = {"NAME": "l16", "IMAGE": "registry.example/vit:tpu", "CLAIM": "runs"}
TPU_SLICE = {"ACCELERATOR": "tpu-v5-lite-podslice", "TOPOLOGY": "4x4", "CHIPS": "4"}
LOCAL = {"VENV": "/nonexistent/venv"}  # not this checkout's: what is printed must not depend on what is installed
SLURM = {"NODES": "2", "GPUS_PER_NODE": "8", "TIME": "12:00:00"}

CASES = {
    "tpu_vm": Case("tpu_vm.sh", ["train", *TRAIN], TPU),
    "tpu_vm_direct": Case(
        "tpu_vm.sh", ["train", *TRAIN], TPU | {"QUEUE": "0", "SPOT": "0", "PROJECT": "p", "PREPARE": "sudo mount x"}, []
    ),
    "tpu_vm_delete": Case("tpu_vm.sh", ["delete"], {"NAME": "l16", "ZONE": "us-west4-a"}),
    "tpu_vm_stop": Case("tpu_vm.sh", ["stop"], {"NAME": "l16", "ZONE": "us-west4-a"}),
    "tpu_vm_fetch": Case("tpu_vm.sh", ["fetch", "/runs/l16", "runs/"], {"NAME": "l16", "ZONE": "us-west4-a"}),
    "slurm": Case("slurm/train.sbatch", TRAIN, SLURM),
    "slurm_partition": Case(
        "slurm/train.sbatch", TRAIN, SLURM | {"PARTITION": "gpu", "ACCOUNT": "lab", "CPUS": "12"}, []
    ),
    "gke_tpu": Case("gke/train.sh", ["tpu", *TRAIN], GKE | TPU_SLICE),
    "gke_gpu": Case(
        "gke/train.sh",
        ["gpu", *TRAIN],
        GKE | {"ACCELERATOR": "nvidia-h100-80gb", "NODES": "2", "GPUS_PER_NODE": "8"},
    ),
    "gke_image": Case("gke/train.sh", ["image"], {"IMAGE": "registry.example/vit:tpu", "EXTRAS": "tpu"}),
    "local": Case("local.sh", ["train", *TRAIN], LOCAL, []),
    "local_procs": Case(
        "local.sh", ["--procs", "2", "--devices=4", "--restarts", "3", "train", *TRAIN], LOCAL | {"EXTRAS": "dev"}, []
    ),
    "local_test": Case("local.sh", ["test", "-k", "two words"], LOCAL, []),
    "skypilot": Case("skypilot.sh", TRAIN, {"BUCKET": "gs://runs", "ACCELERATORS": "H100:8"}),
}


def call(
    case: Case, *, dry: bool = False, path: pathlib.Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the launcher with nothing in its environment but what the case and `variables` say."""
    environment = {
        "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
        "HOME": str(path or "/nonexistent"),
        **case.variables,
        **variables,
    }
    command = [str(ROOT / "launch" / case.launcher), *(["--dry-run"] if dry else []), *case.arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT)


def printed(name: str) -> str:
    """What `--dry-run` prints, without the place of this checkout and its commit."""
    result = call(CASES[name], dry=True)
    assert result.returncode == 0, result.stderr
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return result.stdout.replace(str(ROOT), "ROOT").replace(head or "no commit", "COMMIT")
