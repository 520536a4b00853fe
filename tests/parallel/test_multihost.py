"""Processes are recognised, compared and refused as promised; what needs several is in test_several_processes.py."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.parallel import detection, devices, multihost, odd, packing, rollcall

SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
TPU = {"TPU_ML_PLATFORM": "JAX"}  # what importing JAX leaves where it found chips
GKE = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0", **TPU}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    "environ, name",
    [
        ({}, None),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
        (SLURM, "Slurm"),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "16"}, None),
        (OPEN_MPI, "Open MPI"),
        ({**OPEN_MPI, **SLURM}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (TPU, "TPU VM"),
        ({**TPU, "JAX_PLATFORMS": "cpu"}, None),
        ({**TPU, "TPU_SKIP_MDS_QUERY": "1"}, None),
        (GKE, "GKE"),
        ({**GKE, **POD, "JOB_COMPLETION_INDEX": "0", "TPU_SKIP_MDS_QUERY": "1"}, "GKE"),
        ({**GKE, "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({**GKE, "TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, "GKE"),
        (POD, None),
        ({**POD, "JOB_COMPLETION_INDEX": "3"}, "Kubernetes"),
    ],
)
def test_the_environment_says_who_started_this_process(environ, name):
    assert detection.cluster(environ) == name


def test_jax_itself_finds_the_address_where_slurm_is_recognised(monkeypatch):
    for key, value in {**SLURM, detection.VARIABLE: "auto"}.items():
        monkeypatch.setenv(key, value)
    place = multihost._find(1.0)
    assert place == detection.Place(f"gpu01:{65535 - 2**12 + 1 + 12}", 16, 9, (1,))


def test_a_scheduler_whose_addresses_are_not_known_asks_for_them(monkeypatch):
    for key, value in {**POD, "JOB_COMPLETION_INDEX": "3"}.items():
        monkeypatch.setenv(key, value)
    with (
        pytest.warns(UserWarning, match="kubernetes"),
        pytest.raises(types.InputError, match=r"jax\[k8s\].*--processes"),
    ):
        multihost._find(1.0)


def test_a_job_of_many_tasks_without_srun_is_warned(monkeypatch, capsys):
    for key in ("SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.setenv(key, SLURM[key])
    multihost.start("auto")
    assert "16 tasks" in (said := capsys.readouterr().err) and "Put srun before the command" in said
    assert multihost.count() == 1


def test_explicit_places_are_read():
    assert detection.parse("node7:1234,8,3") == detection.Place("node7:1234", 8, 3)
    assert detection.parse("[fe80::1]:99,2,0").host == "fe80::1"
    assert detection.parse("auto") is None and detection.parse("off") is None


@pytest.mark.parametrize(
    "how, message",
    [
        ("yes", r"must be auto, off, or HOST:PORT,COUNT,INDEX.*'yes' is not"),
        ("node7,8,3", "'node7,8,3' is not"),
        ("node7:99999,8,3", "is not"),
        ("node7:1234,8,8", "no process 8 of 8.* 0 to 7"),
    ],
)
def test_a_place_that_is_none_is_refused_with_the_format(how, message):
    with pytest.raises(types.InputError, match=message):
        multihost.start(how)


def test_the_variable_means_the_same_as_the_argument(monkeypatch):
    monkeypatch.setenv(detection.VARIABLE, "nowhere")
    with pytest.raises(types.InputError, match="TRANSFORMER_JAX_PROCESSES.*'nowhere'"):
        multihost.start()
    multihost.start("off")


def test_durations_must_be_positive(monkeypatch):
    monkeypatch.setenv(multihost.WAIT_VARIABLE, "soon")
    with pytest.raises(
        types.InputError, match="TRANSFORMER_JAX_WAIT must be a number of seconds above 0: it is 'soon'"
    ):
        multihost.start("auto")


def test_alone_everything_is_its_own():
    multihost.start("127.0.0.1:9,1,0")
    assert (multihost.index(), multihost.count(), multihost.main()) == (0, 1, True)
    assert multihost.gather({"a": 1}) == [{"a": 1}] and multihost.broadcast("x") == "x"
    multihost.barrier("here")
    multihost.agree({"step": 3})
    multihost.stop(2, others=2)


@pytest.mark.parametrize(
    "nodes, names",
    [
        ("node001", ["node001"]),
        ("node001,host2", ["node001", "host2"]),
        ("node[009-011],host2", ["node009", "node010", "node011", "host2"]),
        ("gpu[1,07-08]x,a", ["gpu1x", "gpu07x", "gpu08x", "a"]),
    ],
)
def test_node_lists_of_slurm_are_expanded(nodes, names):
    assert detection.expand(nodes) == names


def test_hosts_are_known_as_far_as_the_scheduler_says():
    assert detection.hosts(SLURM, 4) == ["gpu01", "gpu01", "gpu02", "gpu02"]
    assert detection.hosts(GKE, 2) == ["a", "b"]
    assert detection.hosts(SLURM, 3) == detection.hosts({}, 2) == []


@pytest.mark.parametrize(
    "environ, local, expected",
    [
        ({}, 1, (1,)),
        ({}, None, None),
        ({"JAX_LOCAL_DEVICE_IDS": "0,1"}, 1, (0, 1)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 3, (3,)),
        ({"CUDA_VISIBLE_DEVICES": "3"}, 3, None),  # --gpus-per-task=1: it is the only one to be seen
    ],
)
def test_a_task_takes_one_accelerator_or_what_it_was_told(environ, local, expected):
    assert detection.local_devices(environ, local) == expected


def test_the_slurm_trap_is_caught_with_the_remedy():
    environ = {"SLURM_GPUS_ON_NODE": "8"}
    with pytest.raises(
        types.InputError, match=r"gpu01 has 8.*1 task takes 1\. .*--ntasks-per-node=8.*IDS=0,1,2,3,4,5,6,7"
    ):
        devices.check_tasks(environ, tasks=1, seen=1, host="gpu01")
    devices.check_tasks(environ, tasks=8, seen=1, host="gpu01")
    devices.check_tasks(environ, tasks=1, seen=8, host="gpu01")


def test_without_slurm_the_driver_says_how_many_gpus_there_are(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200'; echo 'NVIDIA H200'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(types.InputError, match=r"has 2 \(nvidia-smi\)"):
        devices.check_tasks({}, tasks=1, seen=1, host="here")
    devices.check_tasks({"CUDA_VISIBLE_DEVICES": "0"}, tasks=1, seen=1, host="here")  # hidden on purpose


def test_the_odd_process_is_named_by_the_majority():
    told = [{"config": "a", "step": 3}, {"config": "a", "step": 3}, {"config": "b", "step": 3}]
    found = odd.facts(told, ["h0", "h1", "h2"])
    assert found and "config: process 2 (h2) has 'b', the other 2 have 'a'. Start all" in found and "step:" not in found
    assert odd.facts([told[0]] * 5, ["h"] * 5) is None


def test_of_two_processes_both_values_are_named():
    found = odd.facts([{"examples": 10, "step": 1}, {"examples": 12}], ["h0", "h1"])
    assert found and "examples: process 0 (h0) has 10, process 1 (h1) has 12; step: process 0 (h0) has 1" in found
    assert "process 1 (h1) has none" in found


def test_many_odd_processes_are_counted():
    found = odd.facts([{"step": 0 if index < 14 else 1} for index in range(20)], [f"h{index}" for index in range(20)])
    assert found and "processes 14 (h14), 15 (h15), 16 (h16), 17 (h17) and 2 more have 1, the other 14 have 0" in found


def test_who_is_missing_is_said_with_hosts_where_they_are_known():
    assert rollcall.missing_text([2], 4, 300.0) == "process 2 of 4 did not come within 300 s"
    text = rollcall.missing_text([0, 2, 3], 4, 1.5, ["a", "a", "b", "c"])
    assert text == "processes 0, 2 and 3 of 4 (hosts a, b, c) did not come within 1.5 s"


def test_values_arrive_as_they_were_sent():
    tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": [1, None, True, "x", 0.1], "n": float("nan")}
    tree |= {"c": np.float32(0.1), "d": np.zeros((0, 2), bool), "e": jax.numpy.ones(2, jax.numpy.bfloat16)}
    found = packing.unpack(packing.pack(tree))
    assert found["b"] == tree["b"] and found["n"] != found["n"] and found["c"] == tree["c"]
    for name in "ade":
        np.testing.assert_array_equal(found[name], tree[name])
        assert found[name].dtype == tree[name].dtype
    with pytest.raises(TypeError, match="object is neither"):
        packing.pack({"x": object()})


def test_a_process_alone_imports_and_asks_nothing_for_the_others():
    code = """
        import sys, json, socket
        import jax
        socket.getaddrinfo = socket.create_connection = socket.create_server = None
        from transformer_jax.parallel import multihost
        multihost.start()
        names = ("rollcall", "exchange", "odd", "packing")
        loaded = [name for name in names if f"transformer_jax.parallel.{name}" in sys.modules]
        print(json.dumps([loaded, "requests" in sys.modules, jax._src.xla_bridge.backends_are_initialized()]))
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "OMPI", "TPU", "JOB"))}
    lines = "\n".join(line.strip() for line in code.strip().splitlines())
    found = subprocess.run([sys.executable, "-c", lines], env=clean, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [[], False, False]
