"""Commands of the clouds that only write down how they were called, and say what a test tells them to."""

import pathlib
import shutil
from collections.abc import Callable

import pytest

from tests.launch import cases

FAKE = """#!/usr/bin/env bash
{{ printf '%s' "${{0##*/}}"; printf '\\x1f%s' "$@"; printf '\\x1e'; }} >>{log}
{script}
"""
COMMANDS = ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "sky", "docker")


class Commands:
    """`path` is for PATH; `calls()` are the words of each call so far."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.log = path / "calls.log"
        for name in COMMANDS:
            self.says(name, "")

    def says(self, name: str, script: str) -> None:
        """From now on the command `name` runs this bash script after it has written down its arguments."""
        (self.path / name).write_text(FAKE.format(log=self.log, script=script))
        (self.path / name).chmod(0o755)

    def calls(self) -> list[list[str]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [call.split("\x1f") for call in text.split("\x1e") if call]


@pytest.fixture
def commands(tmp_path: pathlib.Path) -> Commands:
    (tmp_path / "bin").mkdir()
    return Commands(tmp_path / "bin")


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Callable[[str], pathlib.Path]:
    """A copy of `launch/` whose `local.sh` and `transformer-jax` are the given bash script: what a worker has."""

    def make(script: str) -> pathlib.Path:
        folder = tmp_path / "checkout"
        shutil.copytree(cases.ROOT / "launch", folder / "launch")
        (folder / ".venv" / "bin").mkdir(parents=True)
        for program in (folder / "launch" / "local.sh", folder / ".venv" / "bin" / "transformer-jax"):
            program.write_text(f"#!/usr/bin/env bash\n{script}\n")
            program.chmod(0o755)
        return folder

    return make
