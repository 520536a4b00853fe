"""The YAML of GKE and SkyPilot: valid, restarting on the documented codes only, and true to its arguments."""

import fnmatch
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import jsonschema
import pytest
import yaml

from tests.launch import cases, schemas
from transformer_jax.parallel import detection
from transformer_jax.training import exits

GKE = cases.ROOT / "launch" / "gke"


def jobset(name: str, *arguments: str, **variables: str):
    case = cases.CASES[name]
    case = cases.dataclasses.replace(case, arguments=[*case.arguments, *arguments])
    result = cases.call(case, dry=True, **variables)
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)


def job(jobset) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.mark.parametrize("name", ["gke_tpu", "gke_gpu"])
def test_a_jobset_has_only_what_the_interface_knows(name):
    jsonschema.validate(jobset(name), schemas.JOBSET)


@pytest.mark.parametrize("name", ["gke_tpu", "gke_gpu"])
def test_a_jobset_is_started_again_on_the_restartable_codes_only(name):
    text = jobset(name, RESTARTS="7")
    assert text["spec"]["failurePolicy"]["maxRestarts"] == 7
    (rule,) = text["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (rule,) = job(text)["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
    assert set(rule["onExitCodes"]["values"]) == exits.RESTARTABLE
    (container,) = job(text)["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


@pytest.mark.parametrize("name", ["gke_tpu", "gke_gpu"])
def test_python_is_not_process_1_and_gets_the_signals_itself(name):
    """As process 1 of its namespace a lost peer would end it with 139 (the next test), which fails the JobSet.

    The kubelet signals the process that `command` starts, whatever its number is; a shell before it would keep it.
    """
    pod = job(jobset(name))["template"]["spec"]
    assert pod["shareProcessNamespace"] is True
    (container,) = pod["containers"]
    assert container["command"][0] == "transformer-jax"


def test_abort_ends_with_the_code_of_a_lost_peer_only_below_another_process_1():
    aborts = f"{sys.executable} -S -c 'import os; os.abort()'"  # -S: nothing of the environment is needed
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "bash", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespaces on this machine")
    # unshare ends by the signal that ended process 1; bash replaces itself by `exec`, and stays for what follows `;`.
    assert subprocess.run([*alone, f"ulimit -c 0; exec {aborts}"], capture_output=True).returncode == -signal.SIGSEGV
    below = subprocess.run([*alone, f"ulimit -c 0; {aborts}; exit $?"], capture_output=True)
    assert below.returncode == exits.PEER_LOST


@pytest.mark.parametrize(
    ("topology", "chips", "hosts"), [("4x4", 4, 4), ("2x4", 8, 1), ("4x4x4", 4, 16), ("16x16", 4, 64)]
)
def test_a_slice_gets_a_pod_a_node(topology, chips, hosts):
    spec = job(jobset("gke_tpu", TOPOLOGY=topology, CHIPS=str(chips)))
    assert spec["parallelism"] == spec["completions"] == hosts
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


def test_several_slices_are_several_jobs_of_one_set():
    (replicated,) = jobset("gke_tpu", SLICES="3")["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 3


@pytest.mark.parametrize("name", ["gke_tpu", "gke_gpu"])
def test_arguments_arrive_as_they_were_given(name):
    odd = ['--config.a=it\'s "quoted" & spaced: #1', "--config.b=back\\slash", "--config.c={x: 1}"]
    (container,) = job(jobset(name, *odd))["template"]["spec"]["containers"]
    assert container["command"] == ["transformer-jax", "train", *cases.TRAIN, *odd]


def test_kubernetes_puts_no_variable_into_an_argument():
    (container,) = job(jobset("gke_gpu", "--config.a=$(PROCESS)"))["template"]["spec"]["containers"]
    assert container["command"][-1] == "--config.a=$$(PROCESS)"


def test_gpu_nodes_are_told_the_first_the_count_and_their_place():
    text = jobset("gke_gpu", NODES="3")
    (container,) = job(text)["template"]["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert names.index("PROCESS") < names.index("TRANSFORMER_JAX_PROCESSES")  # a reference looks back, not ahead
    (replicated,) = text["spec"]["replicatedJobs"]
    first = f"{text['metadata']['name']}-{replicated['name']}-0-0.{text['metadata']['name']}"
    port = container["ports"][0]["containerPort"]
    assert container["env"][-1]["value"] == f"{first}:{port},3,$(PROCESS)"
    place = detection.parse(container["env"][-1]["value"].replace("$(PROCESS)", "2"))
    assert place == detection.Place(f"{first}:{port}", count=3, index=2)


def test_kubectl_gets_what_the_dry_run_shows(commands):
    commands.says("kubectl", 'cat >"${0%/*}/applied"')
    assert cases.call(cases.CASES["gke_tpu"], path=commands.path).returncode == 0
    assert commands.calls() == [["kubectl", "apply", "--filename", "-"]]
    assert yaml.safe_load((commands.path / "applied").read_text()) == jobset("gke_tpu")


def test_the_image_is_built_from_files_that_are_there_and_not_ignored():
    ignored = (GKE / "Dockerfile.dockerignore").read_text().split()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    copies = re.findall(r"^COPY (.+) \S+$", (GKE / "Dockerfile").read_text(), flags=re.MULTILINE)
    sources = [word for line in copies for word in line.split()]
    assert sources and ignored[0] == "*"
    for source in sources:
        assert (cases.ROOT / source).exists() and any(fnmatch.fnmatch(source, pattern) for pattern in kept)


def skypilot():
    return yaml.safe_load((cases.ROOT / "launch" / "skypilot.yaml").read_text())


def test_the_task_of_skypilot_has_only_what_its_reference_knows():
    jsonschema.validate(skypilot(), schemas.SKYPILOT)


def test_skypilot_recovers_on_the_restartable_codes_only():
    recovery = skypilot()["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == exits.RESTARTABLE and recovery["max_restarts_on_errors"] == 0


@pytest.mark.parametrize(
    ("extras", "nodes", "told"), [("cuda", "2", "10.0.0.1:55527,2,1"), ("cuda", "1", None), ("tpu", "2", None)]
)
def test_a_node_of_skypilot_runs_the_training_as_the_process_it_is(tmp_path: pathlib.Path, extras, nodes, told):
    program = tmp_path / ".venv" / "bin" / "transformer-jax"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$TRANSFORMER_JAX_PROCESSES" "$@"\n')
    program.chmod(0o755)
    case = cases.dataclasses.replace(cases.CASES["skypilot"], arguments=[*cases.TRAIN, "--config.a=two words"])
    words = cases.call(case, dry=True).stdout.splitlines()[0]
    (train,) = [word.removeprefix("TRAIN=") for word in shlex.split(words) if word.startswith("TRAIN=")]
    result = subprocess.run(
        ["bash", "-c", skypilot()["run"]],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "TRAIN": train,
            "EXTRAS": extras,
            "SKYPILOT_NUM_NODES": nodes,
            "SKYPILOT_NODE_RANK": "1",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.splitlines() == [told or "", "train", *case.arguments]


def test_the_schemas_refuse_what_is_misspelt():
    text = json.loads(json.dumps(jobset("gke_tpu")).replace("podFailurePolicy", "podFailurePolicies"))
    with pytest.raises(jsonschema.ValidationError, match="podFailurePolicies"):
        jsonschema.validate(text, schemas.JOBSET)
