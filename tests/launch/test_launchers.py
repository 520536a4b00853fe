"""Every launcher: clean shell, the same last line, a dry run that does nothing, and a clear word on what is missing."""

import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.launch import cases
from transformer_jax.training import exits

SCRIPTS = sorted(
    path
    for path in (cases.ROOT / "launch").rglob("*")
    if path.is_file() and path.read_bytes().startswith((b"#!/usr/bin/env bash", b"# shellcheck shell=bash"))
)


def test_the_shell_scripts_are_clean():
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    assert len(SCRIPTS) >= 6
    scripts = [*SCRIPTS, cases.ROOT / ".ci" / "run"]
    result = subprocess.run([shellcheck, "-x", "-P", cases.ROOT, *scripts], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", cases.CASES)
def test_a_dry_run_prints_what_would_be_done_and_does_none_of_it(name, commands):
    result = cases.call(cases.CASES[name], dry=True, path=commands.path)
    assert result.returncode == 0, result.stderr
    assert commands.calls() == []
    assert cases.printed(name) == (cases.GOLDEN / f"{name}.txt").read_text()  # python -m tests.golden.make_launch


def test_a_dry_run_on_this_machine_makes_no_environment_and_prints_none_that_is_there(tmp_path):
    venv = tmp_path / "venv"
    result = cases.call(cases.CASES["local"], dry=True, VENV=str(venv), PYTHON="/nonexistent/python")
    assert result.returncode == 0 and not venv.exists()
    assert result.stdout.startswith(f"# installs transformer-jax into {venv} with /nonexistent/python")
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    files = b"".join((cases.ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    (venv / ".installed").write_text(
        hashlib.sha256(files + b"\n").hexdigest() + " []\n"
    )  # no PYTHON is named: a line end
    result = cases.call(cases.CASES["local"], dry=True, VENV=str(venv))
    assert result.stdout == f"{venv}/bin/transformer-jax train {' '.join(cases.TRAIN)}\n"


def test_every_dry_run_has_its_golden():
    assert {path.stem for path in cases.GOLDEN.glob("*.txt")} == set(cases.CASES)


@pytest.mark.parametrize("name", [name for name, case in cases.CASES.items() if "--workdir" in case.arguments])
def test_every_training_ends_in_the_same_line(name):
    text = (cases.GOLDEN / f"{name}.txt").read_text().replace('", "', " ")
    line = " ".join(["transformer-jax", "train", *cases.TRAIN])
    assert text.splitlines()[-1].endswith(f"bin/{line}") or f'command: ["{line}"]' in text


@pytest.mark.parametrize(
    ("name", "variable"), [(name, variable) for name, case in cases.CASES.items() for variable in case.required()]
)
def test_a_missing_variable_is_named_with_its_rule_and_an_example(name, variable, commands):
    case = cases.CASES[name]
    result = cases.call(case, path=commands.path, **{variable: ""})
    assert result.returncode == exits.BAD_INPUT, result.stdout
    assert f"launch/{case.launcher}: {variable} must be " in result.stderr
    assert f"it is not set. Example: {variable}=" in result.stderr
    assert commands.calls() == []


@pytest.mark.parametrize(
    ("name", "client"),
    [
        ("tpu_vm", "gcloud"),
        ("slurm", "sbatch"),
        ("gke_tpu", "kubectl"),
        ("gke_gpu", "kubectl"),
        ("gke_image", "docker"),
        ("skypilot", "sky"),
    ],
)
def test_a_client_that_is_not_installed_is_named(name, client, tmp_path):
    for tool in ("bash", "env", "dirname", "sed", "grep", "git"):  # the PATH of a machine with these and no client
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    result = cases.call(cases.CASES[name], PATH=str(tmp_path))
    assert result.returncode == exits.BAD_INPUT
    assert f"launch/{cases.CASES[name].launcher}: {client} must be on PATH; it is not. " in result.stderr
    assert "command not found" not in result.stderr


@pytest.mark.parametrize("option", ["--config", "--workdir"])
@pytest.mark.parametrize("name", ["tpu_vm", "slurm", "gke_tpu", "skypilot"])
def test_a_training_without_experiment_or_folder_is_refused(name, option, commands):
    case = cases.CASES[name]
    words = list(case.arguments)
    at = words.index(option)
    del words[at : at + 2]
    result = cases.call(cases.dataclasses.replace(case, arguments=words), path=commands.path)
    assert result.returncode == exits.BAD_INPUT
    assert f"{option} must name" in result.stderr and "Example:" in result.stderr
    assert commands.calls() == []


@pytest.mark.parametrize(
    ("name", "variable", "value", "said"),
    [
        ("tpu_vm", "RESTARTS", "-1", "RESTARTS must be a whole number of at least 0; it is '-1'"),
        ("slurm", "GPUS_PER_NODE", "0", "GPUS_PER_NODE must be a whole number of at least 1; it is '0'"),
        ("gke_tpu", "TOPOLOGY", "16", "TOPOLOGY must be sizes with x between; it is '16'"),
        ("gke_tpu", "CHIPS", "3", "CHIPS must divide the slice: 4x4 has 16 chips, CHIPS is 3"),
        ("gke_tpu", "NAME", 'a"b', "NAME must be a name of Kubernetes"),
        ("gke_gpu", "NODES", "two", "NODES must be a whole number of at least 1; it is 'two'"),
        ("skypilot", "BUCKET", "runs", "BUCKET must begin with the store it is in; it is 'runs'"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(name, variable, value, said, commands):
    result = cases.call(cases.CASES[name], path=commands.path, **{variable: value})
    assert result.returncode == exits.BAD_INPUT
    assert said in result.stderr
    assert commands.calls() == []


@pytest.mark.parametrize(("name", "where"), [("tpu_vm", "gs://a/b"), ("gke_gpu", "runs/a"), ("skypilot", "/elsewhere")])
def test_a_run_directory_that_would_be_lost_is_refused(name, where, commands):
    case = cases.CASES[name]
    words = [where if word == "/runs/l16" else word for word in case.arguments]
    result = cases.call(cases.dataclasses.replace(case, arguments=words), path=commands.path)
    assert result.returncode == exits.BAD_INPUT
    assert "--workdir must be" in result.stderr and where in result.stderr


README = (cases.ROOT / "launch" / "README.md").read_text()
EXAMPLES = {page.splitlines()[0]: page.split("\n```\n")[1] for page in README.split("\n## ")[1:]}


def example(page: str) -> str:
    """What the commands of a page of the README print with --dry-run."""
    text, count = re.subn(r"(launch/[a-z_/]+\.(sh|sbatch))", r"\1 --dry-run", EXAMPLES[page])
    assert count > 0
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    words = ["bash", "-euc", text]
    result = subprocess.run(words, env=environment, cwd=cases.ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_of_a_page_is_accepted(page):
    assert "--workdir" in example(page)


def test_every_platform_has_its_page():
    assert list(EXAMPLES) == ["Cloud TPU VM", "Slurm", "Google Kubernetes Engine", "SkyPilot"]


def test_the_example_of_gke_runs_the_image_that_was_built_for_the_hardware():
    printed = example("Google Kubernetes Engine")
    built = dict(re.findall(r"--build-arg EXTRAS=(\w+) .*--tag (\S+)", printed))
    pods = re.findall(r'image: "(.+)"(?:.|\n)*?limits: {(google|nvidia).com/', printed)
    assert {kind: image for image, kind in pods} == {"google": built["tpu"], "nvidia": built["cuda"]}
    assert built["tpu"] != built["cuda"]


@pytest.mark.parametrize("name", ["gke_image", "skypilot", "tpu_vm_delete", "tpu_vm_fetch"])
def test_what_is_done_is_what_the_dry_run_printed(name, commands):
    result = cases.call(cases.CASES[name], path=commands.path)
    assert result.returncode == 0, result.stderr
    assert commands.calls() == [
        shlex.split(line, comments=True)
        for line in cases.call(cases.CASES[name], dry=True).stdout.splitlines()
        if not line.startswith(("#", ".venv"))
    ]


@pytest.mark.parametrize("launcher", sorted({case.launcher for case in cases.CASES.values()}))
def test_help_says_how_it_is_called(launcher):
    result = cases.call(cases.Case(launcher, ["--help"], {}))
    assert result.returncode == 0
    assert f"launch/{launcher} " in result.stdout and "Variables: " in result.stdout
    assert not any(line.startswith("#") for line in result.stdout.splitlines())
