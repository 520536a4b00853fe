"""`transformer-jax VERB`: exit 0 on success, 2 with one message on bad input, 143 after a saved SIGTERM or Ctrl-C
(`training/exits.py` has them all).

Nothing heavy is imported before the verb is known, so that `--help` answers at once.
"""

import argparse
import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence

import transformer_jax
from transformer_jax.training import exits

VERBS = {
    "train": "train the model of an experiment file, or continue training it",
    "protocol": "pretrain, tune on the development split, retrain with seeds, compare: the whole transfer protocol",
    "evaluate": "print the metrics of a checkpoint as one JSON object",
    "predict": "classify images, or an array of them, with a checkpoint",
    "inspect": "show what is in a checkpoint of any format we read, or the public ones that are known",
    "convert": "write weights in another format (npz, timm, hf, orbax, safetensors), checked by their logits",
    "bench": "measure step time, throughput, compile time and memory of an experiment, as JSON",
    "plan": "compile the training step for TPUs or GPUs you do not have: memory, fit, communication, time, cost",
    "data": "list, prepare and preview data sets",
    "doctor": "check versions, devices and a few operations; made to be pasted into a report",
}
OVERRIDE = "--config."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="transformer-jax", description=transformer_jax.__doc__)
    parser.add_argument("--version", action="version", version=transformer_jax.__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, summary in VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if words[:1] == [name]:
            importlib.import_module(f"transformer_jax.cli.{name}").options(sub)
    arguments = parser.parse_args(words)
    if overrides and not hasattr(arguments, "config"):
        parser.error(f"{arguments.verb} reads no experiment file, so it takes no {OVERRIDE}{next(iter(overrides))}")
    if None in overrides.values():
        name = next(name for name, value in overrides.items() if value is None)
        parser.error(f"{OVERRIDE}{name} needs a value: {OVERRIDE}{name}=VALUE")
    return _run(arguments, overrides)


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """The command line without its `--config.a.b=v`, and those as `{"a.b": "v"}` (`None`: the value is missing)."""
    rest: list[str] = []
    overrides: dict[str, str | None] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith(OVERRIDE):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix(OVERRIDE).partition("=")
        if not equals:
            follows = bool(queue) and not queue[0].startswith("--")
            overrides[name] = queue.pop(0) if follows else None
        else:
            overrides[name] = value
    return rest, overrides


def add_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`--config FILE[:ARG,...]`, and a word on overrides."""
    parser.add_argument("--config", required=required, metavar="FILE[:ARG,...]", help="experiment file, its arguments")
    parser.epilog = f"{OVERRIDE}a.b=VALUE changes one setting of the experiment; its type is the constructor's."


def add_processes(parser: argparse.ArgumentParser) -> None:
    """`--processes`: how this process finds the others of its run."""
    parser.add_argument(
        "--processes",
        metavar="auto|off|HOST:PORT,COUNT,INDEX",
        help="the other processes of this run: as Slurm, GKE, a TPU VM, Open MPI or Kubernetes say (auto, the default),"
        " none (off), or COUNT of them, this one with its INDEX from 0, and the address of process 0;"
        " also TRANSFORMER_JAX_PROCESSES",
    )


def _run(arguments: argparse.Namespace, overrides: dict[str, str | None]) -> int:
    """Call the verb, alone or as one of several processes; returns the exit code."""
    arguments.overrides = overrides
    if not hasattr(arguments, "processes"):
        return _call(arguments, lambda text: print(text, file=sys.stderr))
    from transformer_jax.cli import together  # not above: this loads JAX, and `--help` need not

    def work() -> int:
        return _call(arguments, together.complain, before=lambda: together.join(arguments.processes))

    return together.leave(arguments.verb, work)


def _call(arguments: argparse.Namespace, say: Callable[[str], None], before: Callable[[], None] = lambda: None) -> int:
    """Call the verb; turn the errors a user is meant to read into exit codes."""
    from transformer_jax import types  # not above: these load JAX
    from transformer_jax.parallel import detection
    from transformer_jax.training import failures, preemption

    name = f"transformer-jax {arguments.verb}"
    try:
        verb = importlib.import_module(f"transformer_jax.cli.{arguments.verb}")
        before()
        code = verb.run(arguments) or exits.OK
        sys.stdout.flush()  # a reader that has gone shows here, and not while Python ends
        return code
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return exits.READER_GONE
    except types.InputError as error:
        say(f"{name}: {error}")
        return exits.BAD_INPUT
    except detection.PeerLost as error:
        say(f"{name}: {error}")
        return exits.PEER_LOST
    except preemption.Preempted:
        say(f"{name}: asked to stop; the same command continues.")
        return exits.PREEMPTED
    except KeyboardInterrupt:  # before anything was there to save, or a second time
        say(f"{name}: stopped.")
        return exits.INTERRUPTED
    except failures.Diverged as error:
        say(f"{name}: {error}")
        return exits.DIVERGED
    except failures.DiskFull as error:
        say(f"{name}: {error}")
        return exits.FAILED


def _reader_has_gone() -> bool:
    """Whether it is the output that nobody reads any more (`| head`); then nothing more is said there."""
    try:
        output = sys.stdout.fileno()
        poller = select.poll()
        poller.register(output, select.POLLOUT)
        gone = any(event & select.POLLERR for _, event in poller.poll(0))
    except (AttributeError, OSError, ValueError):  # no such thing as poll, or no file behind the output
        return False
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


if __name__ == "__main__":
    sys.exit(main())
