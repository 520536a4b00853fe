"""`transformer-jax train`: one experiment file, one run directory."""

import argparse

from transformer_jax.cli import main


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    main.add_processes(parser)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run directory: made, or continued")
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, run one step on fake data, write nothing"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train, or rehearse."""
    from transformer_jax import config, experiment

    resolved = experiment.resolve(config.load(arguments.config), arguments.overrides)
    if arguments.dry_run:
        print(experiment.rehearse(resolved))
    else:
        experiment.train(resolved, arguments.workdir)
