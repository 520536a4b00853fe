"""launch/tpu_vm.sh: what an end of the training on a slice means, and what a worker does with the signals."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.launch import cases
from transformer_jax.training import exits

# The state of the machine is a file; creating and deleting change it; the training is a script.
GCLOUD = """
here="${0%/*}"
case "$*" in
  *"queued-resources list"*) cat "$here/queued" 2>/dev/null || true ;;
  *" list "*) [ ! -e "$here/state" ] || cat "$here/state"; [ ! -e "$here/broken" ] ;;
  *" create "*) echo READY >"$here/state"; echo ACTIVE >"$here/queued" ;;
  *" delete "*) rm -f "$here/state" "$here/queued" ;;
  *"tpu_vm.sh worker"*) TRAINING ;;
esac
"""


def attempt(
    commands, training: str, *, state: str = "READY", verb: str = "attempt", script: str = GCLOUD, **variables: str
):
    commands.says("gcloud", script.replace("TRAINING", training))
    commands.says("git", "")
    if state:
        (commands.path / "state").write_text(state + "\n")
        (commands.path / "queued").write_text("ACTIVE\n")
    case = cases.Case("tpu_vm.sh", [verb, *cases.TRAIN], cases.TPU | {"POLL": "0"})
    return cases.call(case, path=commands.path, **variables)


def done(commands) -> list[str]:
    """The verbs of gcloud that change or use something, in order."""
    return [call[4] for call in commands.calls() if call[0] == "gcloud" and call[4] != "list"]


def fails(*codes: int) -> str:
    """As gcloud ends when these workers failed: with the code of the first, naming all on standard error."""
    said = "; ".join(
        f'echo "##### Command execution on worker {worker} failed with exit status {code}. Continuing." >&2'
        for worker, code in enumerate(codes)
    )
    return f"{said}; exit {codes[0]}"


def test_a_machine_that_is_there_is_set_up_and_used(commands):
    assert attempt(commands, "exit 0").returncode == 0
    assert done(commands) == ["scp", "ssh", "ssh"]


def test_a_machine_that_is_not_there_is_created(commands):
    assert attempt(commands, "exit 0", state="").returncode == 0
    assert done(commands) == ["create", "scp", "ssh", "ssh"]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_machine_that_was_taken_is_deleted_and_created(state, commands):
    assert attempt(commands, "exit 0", state=state).returncode == 0
    assert done(commands) == ["delete", "create", "scp", "ssh", "ssh"]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([exits.HUNG], exits.HUNG),
        ([exits.PEER_LOST, exits.PEER_LOST], exits.PEER_LOST),
        ([exits.PEER_LOST, exits.BAD_INPUT, exits.PEER_LOST], exits.BAD_INPUT),
        ([exits.PEER_LOST, exits.DIVERGED], exits.DIVERGED),
        ([exits.FAILED, exits.PEER_LOST], exits.FAILED),
    ],
)
def test_the_code_that_must_not_be_repeated_decides(codes, code, commands):
    assert attempt(commands, fails(*codes)).returncode == code


def test_a_broken_connection_to_a_machine_that_is_there_is_worth_a_restart(commands):
    assert attempt(commands, fails(255, 255)).returncode in exits.RESTARTABLE


def test_a_machine_taken_during_the_training_is_a_preemption(commands):
    taken = 'echo PREEMPTED >"$here/state"; ' + fails(255)
    assert attempt(commands, taken).returncode == exits.PREEMPTED


def test_a_machine_that_waits_in_the_queue_is_waited_for(commands):
    waits = '[ -e "$here/state" ] || echo READY >"$here/state"'
    (commands.path / "queued").write_text("WAITING_FOR_RESOURCES\n")
    script = GCLOUD.replace('[ ! -e "$here/broken" ]', waits)
    assert attempt(commands, "exit 0", state="", script=script).returncode == 0
    assert done(commands) == ["scp", "ssh", "ssh"]


@pytest.mark.parametrize("state", ["READY", "", "PREEMPTED"])
def test_without_a_queue_it_is_not_asked_for(state, commands):
    """Who may not use queued resources would be told that nothing is known, at every attempt."""
    script = GCLOUD.replace('cat "$here/queued" 2>/dev/null || true', "exit 1")
    assert attempt(commands, "exit 0", state=state, script=script, QUEUE="0").returncode == 0
    assert not [call for call in commands.calls() if "queued-resources" in call]
    assert done(commands)[-3:] == ["scp", "ssh", "ssh"]


@pytest.mark.parametrize(
    ("state", "queued"), [("DELETING", "DELETING"), ("READY", "SUSPENDING"), ("ABSENT", "DELETING"), ("STOPPING", "")]
)
def test_what_is_leaving_is_waited_for_and_not_deleted_again(state, queued, commands):
    """At the third look it is gone."""
    look = f"""
looks="$here/looks"; echo x >>"$looks"; seen=$(wc -l <"$looks")
case "$seen,$*" in
  [1-4],*"queued-resources list"*) echo {queued}; exit ;;
  [1-4],*"tpu-vm list"*) echo {state.replace("ABSENT", "")}; exit ;;
  5,*) rm "$here/state" "$here/queued" ;;
esac
"""
    assert attempt(commands, "exit 0", script=GCLOUD.replace("case", look + "case", 1)).returncode == 0
    assert done(commands) == ["create", "scp", "ssh", "ssh"]


@pytest.mark.parametrize(("queue", "gone"), [("1", "SUSPENDED"), ("0", "PREEMPTED"), ("0", "")])
def test_a_machine_taken_before_it_is_ready_is_worth_a_restart(queue, gone, commands):
    script = GCLOUD.replace("echo READY", f"echo {gone if queue == '0' else 'CREATING'}").replace("ACTIVE", gone)
    found = attempt(commands, "exit 0", state="", script=script, QUEUE=queue)
    assert found.returncode == exits.PREEMPTED and "was taken before it was ready" in found.stderr


def test_nothing_is_created_when_gcloud_cannot_say_what_is_there(commands):
    (commands.path / "broken").touch()
    assert attempt(commands, "exit 0", state="").returncode == exits.PEER_LOST  # worth another attempt
    assert done(commands) == []


def test_training_goes_on_after_a_preemption_on_a_new_machine(commands):
    once = 'if [ -e "$here/once" ]; then exit 0; fi; touch "$here/once"; echo PREEMPTED >"$here/state"; ' + fails(255)
    assert attempt(commands, once, verb="train").returncode == 0
    assert done(commands) == ["scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]


def test_training_does_not_repeat_a_mistake(commands):
    assert attempt(commands, fails(exits.BAD_INPUT), verb="train").returncode == exits.BAD_INPUT
    assert done(commands) == ["scp", "ssh", "ssh"]


def test_restarts_have_an_end(commands):
    assert attempt(commands, fails(exits.HUNG), verb="train", RESTARTS="1").returncode == exits.HUNG
    assert done(commands) == ["scp", "ssh", "ssh"] * 2


WORKER = """
home="${0%/*}/worker"
mkdir -p "$home"
case "$4" in
  scp) cp "$5" "$home/${6#*:}" ;;
  ssh) cd "$home" && HOME="$home" PATH="$home/.local/bin:$PATH" bash -c "${8#--command=}" ;;
esac
"""


def committed(folder: pathlib.Path) -> pathlib.Path:
    """The folder as a repository with one commit, and `experiment.py` changed since."""
    git = ["git", "-C", folder, "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
    (folder / "experiment.py").write_text("one")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    (folder / "experiment.py").write_text("changed, not committed")
    return folder


def from_here(commands, folder: pathlib.Path, *words: str, gcloud: str = WORKER) -> subprocess.CompletedProcess[str]:
    """Call the launcher of the checkout, with one worker whose home is `worker` beside the commands."""
    commands.says("gcloud", gcloud)
    path = f"{commands.path}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), **cases.TPU}
    command = [folder / "launch" / "tpu_vm.sh", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def program(path: pathlib.Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def test_a_worker_gets_what_is_committed_and_an_environment(commands, checkout):
    folder = committed(checkout('echo "$EXTRAS $PYTHON $1 $(cat experiment.py)" >>"$HOME/started"'))
    program(commands.path / "worker" / ".local" / "bin" / "uv", "echo of-uv")
    result = from_here(commands, folder, "setup")
    assert result.returncode == 0, result.stderr
    assert "what is not committed is not sent" in result.stderr
    assert (commands.path / "worker" / "started").read_text() == "tpu of-uv --version one\n"


# What a machine has: an old Python, and a uv that knows a newer one, makes environments of it and installs into them.
OLD_PYTHON = 'case "$1" in -V) echo Python 3.10.12 ;; -c) exit 1 ;; *) exit 9 ;; esac'
NEW_PYTHON = 'case "$1" in -V) echo Python 3.12.1 ;; -c) exit 0 ;; *) exit 9 ;; esac'
UV = """
case "$1 $2" in
  "python find") echo "$HOME/python3.12" ;;
  "venv "*) mkdir -p "${!#}/bin"; touch "${!#}/pyvenv.cfg"; cp "$HOME/python3.12" "${!#}/bin/python" ;;
  "pip install")
    printf '#!/bin/sh\\necho trains: "$@"\\n' >.venv/bin/transformer-jax
    chmod +x .venv/bin/transformer-jax ;;
esac
"""


def test_a_worker_whose_own_python_is_old_trains_with_the_one_it_was_given(commands, tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(cases.ROOT / "launch", folder / "launch")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(cases.ROOT / name, folder)
    worker = commands.path / "worker"
    program(worker / "python3.12", NEW_PYTHON)
    program(worker / ".local" / "bin" / "python3", OLD_PYTHON)
    program(worker / ".local" / "bin" / "uv", UV)
    ready = f'case "$*" in *" list "*) echo READY; exit ;; esac\n{WORKER}'
    result = from_here(commands, committed(folder), "attempt", *cases.TRAIN, gcloud=ready)
    assert result.returncode == 0, result.stderr
    assert f"trains: train {' '.join(cases.TRAIN)}\n" in result.stdout


def test_a_worker_without_an_environment_says_how_to_make_one(checkout):
    folder = checkout("exit 1")
    (folder / ".venv" / "bin" / "transformer-jax").unlink()
    worker = start(folder, stderr=subprocess.PIPE)
    assert "Run: launch/tpu_vm.sh setup" in worker.communicate(timeout=60)[1] and worker.returncode == exits.BAD_INPUT


def start(checkout: pathlib.Path, **streams: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [checkout / "launch" / "tpu_vm.sh", "worker", *cases.TRAIN],
        env={"PATH": os.environ["PATH"], "HOME": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_a_worker_runs_the_training_and_ends_with_its_code(checkout):
    worker = start(checkout('echo "$@"; exit 75'))
    assert worker.communicate(timeout=60)[0].split() == ["train", *cases.TRAIN]
    assert worker.returncode == exits.HUNG


SAVES = "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.02; done"


def test_a_worker_hands_a_signal_on_and_waits_for_the_save(checkout):
    worker = start(checkout(SAVES))
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGTERM)
    assert worker.communicate(timeout=60)[0] == "saved\n"
    assert worker.returncode == exits.PREEMPTED


def test_a_worker_told_to_stop_is_not_started_again(checkout):
    folder = checkout(SAVES)
    worker = start(folder)
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    (stop,) = [line for line in cases.printed("tpu_vm_stop").splitlines() if "touch" in line]
    subprocess.run(["bash", "-c", stop.split("--command=")[1].rstrip("'")], env={"HOME": str(folder)}, check=True)
    assert worker.communicate(timeout=60)[0] == "saved\n"
    assert worker.returncode == exits.INTERRUPTED and worker.returncode not in exits.RESTARTABLE


def test_a_worker_ends_the_training_that_a_broken_connection_left(checkout):
    folder = checkout(SAVES)
    left = start(folder)
    assert left.stdout is not None and left.stdout.readline() == "ready\n"
    while not (folder / ".transformer_jax.pid").exists():
        time.sleep(0.01)
    (folder / ".venv" / "bin" / "transformer-jax").write_text("#!/usr/bin/env bash\necho next\n")
    worker = start(folder)
    assert worker.communicate(timeout=60)[0] == "next\n"
    assert left.communicate(timeout=60)[0] == "saved\n"
