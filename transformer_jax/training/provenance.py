"""`run.json`: what one would need to know to run this again."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

from transformer_jax.parallel import multihost

FILE = "run.json"
_PACKAGES = ("transformer-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write(directory: str | os.PathLike[str], *, seed: int | None, **more: Any) -> dict[str, Any]:
    """Writes `run.json`. A run that is continued keeps what its first start wrote and adds to `restarts`."""
    path = pathlib.Path(directory) / FILE
    record = {**collect(), "seed": seed, **more}
    if path.exists():
        first = json.loads(path.read_text())
        record = {**first, "restarts": [*first.get("restarts", []), record]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{FILE}.tmp")
    temporary.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(temporary, path)
    return record


def collect() -> dict[str, Any]:
    """Git commit, versions, devices and command of this process."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git": git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "devices": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": multihost.count(),
        },
    }


def git_commit() -> str | None:
    """The commit of the checkout this package lies in, `+changes` if it has any; None outside of one."""
    here = pathlib.Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD").strip()
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(directory: pathlib.Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *command], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
