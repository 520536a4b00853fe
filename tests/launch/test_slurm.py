"""launch/slurm/train.sbatch inside a job: the tasks and their GPUs, and when the job is queued again."""

import os
import shutil
import subprocess

import pytest

from tests.launch import cases
from transformer_jax.training import exits

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_SUBMIT_DIR": str(cases.ROOT),
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_GPUS_ON_NODE": "8",
}
REQUEUE = ["scontrol", "requeue", "7"]


def job(commands, code: int = 0, state: str = "RUNNING", **variables: str):
    commands.says("srun", f"exit {code}")
    commands.says("scontrol", f'[ "$1" = requeue ] || echo "JobId=7 JobState={state} Reason=None"')
    case = cases.Case("slurm/train.sbatch", ["--job", *cases.TRAIN], JOB | variables)
    return cases.call(case, path=commands.path)


def test_the_job_starts_the_training_on_its_tasks(commands):
    assert job(commands).returncode == 0
    (call,) = commands.calls()
    assert call[0] == "srun" and call[-len(cases.TRAIN) - 2 :] == [".venv/bin/transformer-jax", "train", *cases.TRAIN]


def test_submission_asks_for_as_many_tasks_as_gpus(commands):
    text = cases.printed("slurm")
    assert "--gpus-per-node=8 --ntasks-per-node=8" in text and "--gpus-per-task" not in text


def run(script, commands, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call this copy of the script, as a job is called and as the shell of `salloc` would call it."""
    environment = {"PATH": f"{commands.path}:{os.environ['PATH']}", **JOB, **cases.SLURM, **variables}
    return subprocess.run([script, *words], env=environment, capture_output=True, text=True, timeout=60)


def test_what_is_started_inside_salloc_is_submitted_and_what_is_submitted_is_the_job(commands, checkout, tmp_path):
    """Its shell has the variables of Slurm too, with the folder where salloc was called."""
    folder = checkout("true")
    script = folder / "launch" / "slurm" / "train.sbatch"
    result = run(script, commands, *cases.TRAIN, SLURM_SUBMIT_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    (call,) = commands.calls()
    assert call[0] == "sbatch" and call[-len(cases.TRAIN) :] == cases.TRAIN
    words = call[call.index("launch/slurm/train.sbatch") + 1 :]
    assert run(script, commands, *words, SLURM_SUBMIT_DIR=str(folder)).returncode == 0
    assert [call[0] for call in commands.calls()] == ["sbatch", "srun"]


@pytest.mark.parametrize("marker", [["--job"], []])
def test_slurm_runs_a_copy_of_the_script_and_one_submitted_by_hand_is_a_job_too(marker, commands, tmp_path):
    spool = tmp_path / "spool" / "slurmd" / "job00007"
    spool.mkdir(parents=True)
    copy = shutil.copy(cases.ROOT / "launch" / "slurm" / "train.sbatch", spool / "slurm_script")
    assert run(copy, commands, *marker, *cases.TRAIN).returncode == 0
    assert [call[0] for call in commands.calls()] == ["srun"]
    assert "submit it from the root of the checkout" in run(copy, commands, SLURM_SUBMIT_DIR=str(tmp_path)).stderr


def test_one_task_on_a_node_of_eight_gpus_is_refused(commands):
    result = job(commands, SLURM_NTASKS_PER_NODE="1")
    assert result.returncode == exits.BAD_INPUT
    assert "as many tasks as GPUs" in result.stderr and "1 tasks and 8 GPUs" in result.stderr
    assert commands.calls() == []


def test_gpus_hidden_from_tasks_are_refused(commands):
    result = job(commands, SLURM_GPUS_PER_TASK="1")
    assert result.returncode == exits.BAD_INPUT and "--gpus-per-task must not be set" in result.stderr


@pytest.mark.parametrize("code", sorted(exits.RESTARTABLE))
def test_a_job_worth_a_restart_is_queued_again(code, commands):
    assert job(commands, code).returncode == code
    assert commands.calls()[-1] == REQUEUE


@pytest.mark.parametrize("code", [exits.OK, exits.FAILED, exits.BAD_INPUT, exits.DIVERGED, exits.INTERRUPTED])
def test_another_end_is_the_end(code, commands):
    assert job(commands, code).returncode == code
    assert REQUEUE not in commands.calls()


@pytest.mark.parametrize(
    "tasks, again",
    [
        ((137, 134, 134), True),
        ((134, 253, 134), True),  # srun's own code for a task that ran out of memory
        ((143, 143, 143), True),
        ((1, 1, 1), False),  # tests/cli/test_together.py: no task ends with 134 where another one fails for good
        ((2, 2, 2), False),
        ((130, 130, 130), False),
        ((1, 0, 0), False),
    ],
)
def test_srun_gives_the_highest_code_of_its_tasks_and_that_decides(tasks, again, commands):
    assert job(commands, max(tasks)).returncode == max(tasks)
    assert (REQUEUE in commands.calls()) is again


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING"])
def test_a_job_that_slurm_ended_is_left_to_slurm(state, commands):
    """`scancel` sends SIGTERM too; a preemption by Slurm queues the job by itself."""
    job(commands, exits.PREEMPTED, state)
    assert REQUEUE not in commands.calls()


def test_restarts_have_an_end(commands):
    result = job(commands, exits.HUNG, RESTARTS="3", SLURM_RESTART_COUNT="3")
    assert "after 3 restarts" in result.stderr and REQUEUE not in commands.calls()


def test_the_time_limit_is_announced_to_the_tasks_not_to_the_shell():
    lines = (cases.ROOT / "launch/slurm/train.sbatch").read_text().splitlines()
    assert "#SBATCH --signal=TERM@120" in lines and "#SBATCH --requeue" in lines
