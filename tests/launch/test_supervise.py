"""Restarts on the documented codes only; several processes as one command: its lines, signals and exit code."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from tests.launch import cases
from transformer_jax.training import exits

LAUNCH = cases.ROOT / "launch"


def supervise(*words):
    command = [LAUNCH / "supervise.sh", "--pause", "0.01", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def attempts(tmp_path):
    """A command that ends with the next of the codes it is given, and how often it ran."""
    script, log = tmp_path / "attempt.sh", tmp_path / "log"
    script.write_text(f'echo x >>"{log}"\nshift $(($(wc -l <"{log}") - 1))\nexit "$1"\n')
    return script, lambda: len(log.read_text().splitlines())


@pytest.mark.parametrize("code", sorted(exits.RESTARTABLE))
def test_a_restartable_code_is_answered_by_a_restart(attempts, code):
    script, count = attempts
    found = supervise("--restarts", 5, "--", "bash", script, code, code, 0)
    assert found.returncode == 0 and count() == 3
    assert f"ended with {code}; restart 2 of 5" in found.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130, 141])
def test_every_other_code_is_final(attempts, code):
    script, count = attempts
    assert supervise("--restarts", 5, "--", "bash", script, code, 0).returncode == code
    assert count() == 1


def test_restarts_are_counted(attempts):
    script, count = attempts
    found = supervise("--restarts", 2, "--", "bash", script, 75, 134, 137, 0)
    assert found.returncode == 137 and count() == 3 and "no restart is left of 2" in found.stderr


def test_two_restarts_without_a_new_checkpoint_are_the_end(attempts, tmp_path):
    script, count = attempts
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    words = ["--", "bash", script, *[75] * 9, "--workdir", tmp_path / "run"]
    found = supervise("--restarts", 8, *words)
    assert found.returncode == 75 and count() == 3
    assert f"the last two restarts brought no new checkpoint under {tmp_path / 'run'}" in found.stderr


def test_with_a_new_checkpoint_the_restarts_go_on(tmp_path):
    code = f'mkdir -p "{tmp_path}/run/pretrain/checkpoints/$$/state"; exit 134'
    found = supervise("--restarts", 4, "--", "sh", "-c", code, "sh", f"--workdir={tmp_path}/run")
    assert found.returncode == 134 and "no restart is left of 4" in found.stderr


def test_a_run_that_is_over_is_progress_without_a_checkpoint(tmp_path):
    """As the runs are with which a protocol chooses its settings."""
    code = f'mkdir -p "{tmp_path}/run/tune/$$"; echo 1 >"{tmp_path}/run/tune/$$/outcome.json"; exit 134'
    found = supervise("--restarts", 4, "--", "sh", "-c", code, "sh", f"--workdir={tmp_path}/run")
    assert found.returncode == 134 and "no restart is left of 4" in found.stderr


@pytest.mark.parametrize(
    "codes, runs", [([143] * 9, 6), ([75, 143, 143, 75, 143, 75, 0], 6), ([143, 75, 143, 75, 0], 4)]
)
def test_a_preemption_is_no_restart_in_vain(codes, runs, attempts, tmp_path):
    script, count = attempts
    (tmp_path / "run").mkdir()
    found = supervise("--restarts", 5, "--", "bash", script, *codes, "--workdir", tmp_path / "run")
    assert count() == runs and found.returncode == codes[runs - 1]
    assert ("given up" in found.stderr) == (75 in codes)


def test_a_supervisor_that_is_told_to_stop_passes_it_on_and_starts_nothing(tmp_path):
    code = f'trap "exit 143" TERM; echo x >>"{tmp_path}/log"; while :; do sleep 0.05; done'
    process = subprocess.Popen([LAUNCH / "supervise.sh", "--", "bash", "-c", code], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and "SIGTERM: the command ended with 143 and is not started again" in err
    assert (tmp_path / "log").read_text() == "x\n"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--restarts", "x", "--", "true"], "--restarts must be a whole number; it is 'x'"),
        (["true"], "'true' is not an option"),
        (["--restarts"], "an option needs a value"),
        (["--"], "there must be a command after --"),
    ],
)
def test_a_supervisor_refuses_what_it_does_not_know(words, message):
    found = supervise(*words)
    assert found.returncode == 2 and message in found.stderr


def processes(count, script, **environ):
    command = [LAUNCH / "processes.sh", str(count), "4", "bash", "-c", script]
    environ = {**os.environ, **environ}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


OWN = 'index="${TRANSFORMER_JAX_PROCESSES##*,}"; '


def test_every_process_knows_its_place_and_every_line_its_process():
    group = processes(2, "echo $TRANSFORMER_JAX_PROCESSES $JAX_NUM_CPU_DEVICES $JAX_PLATFORMS; echo e >&2; printf tail")
    out, err = group.communicate(timeout=30)
    lines = sorted(out.splitlines())
    port = lines[0].split(":")[1].split(",")[0]
    assert lines == sorted(f"[{i}] {text}" for i in (0, 1) for text in (f"127.0.0.1:{port},2,{i} 4 cpu", "tail"))
    assert sorted(err.splitlines()) == ["[0] e", "[1] e"] and group.returncode == 0


@pytest.mark.parametrize(
    "codes, code",
    [
        ((0, 0, 0), 0),
        ((143, 143, 143), 143),
        ((134, 137, 134), 137),
        ((134, 134, 75), 75),
        ((134, 2, 137), 2),
        ((3, 134, 134), 3),
        ((134, 41, 0), 41),
        ((143, 0, 134), 134),
    ],
)
def test_the_group_ends_with_the_code_that_explains_it(codes, code):
    script = f'{OWN}codes=({" ".join(map(str, codes))}); exit "${{codes[$index]}}"'
    group = processes(len(codes), script)
    group.communicate(timeout=30)
    assert group.returncode == code


def test_a_signal_reaches_every_process_once():
    group = processes(2, 'trap "echo told; exit 143" TERM; echo up; while :; do sleep 0.05; done')
    assert {group.stdout.readline(), group.stdout.readline()} == {"[0] up\n", "[1] up\n"}
    group.send_signal(signal.SIGINT)
    out, _ = group.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["[0] told", "[1] told"] and group.returncode == 143


@pytest.mark.parametrize("left", ["sleep 300", "setsid sleep 300"])
def test_what_outlives_a_process_and_holds_its_output_is_not_waited_for(left, tmp_path):
    begun = time.monotonic()
    group = processes(2, f'echo up; {left} & echo $! >>"{tmp_path}/pids"; exit 137', PROCESSES_PATIENCE="0.2")
    out, err = group.communicate(timeout=30)
    assert group.returncode == 137 and sorted(out.splitlines()) == ["[0] up", "[1] up"] and err == ""
    assert time.monotonic() - begun < 15
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        if left.startswith("setsid"):  # of another group: it is left, and cleared away here
            os.kill(pid, signal.SIGKILL)
        else:
            stat = pathlib.Path(f"/proc/{pid}/stat")
            assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--procs", "two", "train"], "--procs must be a whole number; it is 'two'"),
        (["--devices"], "--devices must be a whole number; it is ''"),
        (["--procs=2", "doctor"], "'doctor' is for one"),
    ],
)
def test_the_local_launcher_refuses_what_cannot_be_several(words, message):
    found = subprocess.run([LAUNCH / "local.sh", *words], capture_output=True, text=True, timeout=30)
    assert found.returncode == 2 and message in found.stderr
