"""`transformer-jax doctor`: versions, devices, one matmul, one attention, a write test."""

import argparse


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--workdir", default=".", metavar="DIR", help="where runs will be written (default: here)")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 when every check passed, 1 otherwise."""
    from transformer_jax.tools import doctor

    lines, healthy = doctor.examine(arguments.workdir)
    print("\n".join(lines))
    return 0 if healthy else 1
