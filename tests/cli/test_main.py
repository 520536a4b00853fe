import subprocess
import sys

import pytest

import transformer_jax
from transformer_jax import types
from transformer_jax.cli import main
from transformer_jax.cli import train as train_verb
from transformer_jax.training import exits, failures, preemption


def test_overrides_are_taken_out_of_the_command_line():
    words = [
        "train",
        "--config",
        "x.py",
        "--config.a.b=1=2",
        "--config.c",
        "3",
        "--workdir",
        "w",
        "--config.d",
        "--dry-run",
    ]
    rest, overrides = main.split_overrides(words)
    assert rest == ["train", "--config", "x.py", "--workdir", "w", "--dry-run"]
    assert overrides == {"a.b": "1=2", "c": "3", "d": None}


def test_help_names_every_verb_and_loads_nothing_heavy():
    code = "import sys\nfrom transformer_jax.cli import main\ntry: main.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('loaded', [m for m in ('jax', 'numpy', 'flax', 'ml_collections') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(verb in result.stdout for verb in main.VERBS)
    assert result.stdout.strip().endswith("loaded []")


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help_and_exits_0(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: transformer-jax " + verb in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--workdir", "w"], "--config"),
        (["train", "--config", "x.py", "--workdir", "w", "--config.seed"], "--config.seed needs a value"),
        (["doctor", "--config.seed=1"], "doctor reads no experiment file"),
    ],
)
def test_a_usage_error_exits_2(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_input_is_one_message_and_exit_2(monkeypatch, capsys):
    def fail(arguments):
        raise types.InputError("The rule: 3. The remedy.")

    monkeypatch.setattr(train_verb, "run", fail)
    assert main.main(["train", "--config", "x.py", "--workdir", "w"]) == 2
    assert capsys.readouterr().err == "transformer-jax train: The rule: 3. The remedy.\n"


def test_a_preempted_run_exits_143(monkeypatch):
    def stop(arguments):
        raise preemption.Preempted

    monkeypatch.setattr(train_verb, "run", stop)
    assert main.main(["train", "--config", "x.py", "--workdir", "w"]) == 143


def test_a_run_that_diverged_has_a_code_of_its_own(monkeypatch, capsys):
    def diverge(arguments):
        raise failures.Diverged("Training needs finite numbers.")

    monkeypatch.setattr(train_verb, "run", diverge)
    assert main.main(["train", "--config", "x.py", "--workdir", "w"]) == exits.DIVERGED
    assert capsys.readouterr().err == "transformer-jax train: Training needs finite numbers.\n"
    assert exits.DIVERGED not in exits.RESTARTABLE


def test_a_full_disk_is_one_message_and_exit_1(monkeypatch, capsys):
    def fill(arguments):
        raise failures.DiskFull("The disk of /runs is full.")

    monkeypatch.setattr(train_verb, "run", fill)
    assert main.main(["train", "--config", "x.py", "--workdir", "w"]) == exits.FAILED
    assert capsys.readouterr().err == "transformer-jax train: The disk of /runs is full.\n"


def test_a_missing_experiment_file_is_bad_input(capsys):
    assert main.main(["train", "--config", "no/such.py", "--workdir", "w"]) == 2
    assert "'no/such.py' does not exist" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert capsys.readouterr().out.strip() == transformer_jax.__version__


def test_ctrl_c_before_there_is_anything_to_save_is_one_line_and_exit_130(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_verb, "run", interrupted)
    assert main.main(["train", "--config", "x.py", "--workdir", "w"]) == 130
    assert capsys.readouterr().err == "transformer-jax train: stopped.\n"


def test_a_reader_that_has_enough_is_no_error():
    """`inspect --known | head -1`: the reader is gone before the table is written."""
    command = [sys.executable, "-m", "transformer_jax", "inspect", "--known"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == exits.READER_GONE


def test_another_pipe_that_breaks_is_not_hidden(monkeypatch):
    monkeypatch.setattr(train_verb, "run", lambda arguments: (_ for _ in ()).throw(BrokenPipeError("a worker")))
    with pytest.raises(BrokenPipeError, match="a worker"):
        main.main(["train", "--config", "x.py", "--workdir", "w"])
