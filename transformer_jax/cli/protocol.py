"""`transformer-jax protocol`: the closed loop of pretraining and transfer."""

import argparse

from transformer_jax.cli import main


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    main.add_processes(parser)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where every run and the results go")


def run(arguments: argparse.Namespace) -> None:
    """Run what is left of the protocol, print its table."""
    from transformer_jax import config, protocol

    resolved = protocol.resolve(config.load(arguments.config), arguments.overrides)
    results = protocol.run(resolved, arguments.workdir)
    print(protocol.table(results))
