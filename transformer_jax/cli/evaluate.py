"""`transformer-jax evaluate`: the evaluators of an experiment file, over a checkpoint."""

import argparse
import json

from transformer_jax.cli import main


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="run directory, checkpoint or weights file")


def run(arguments: argparse.Namespace) -> None:
    """Print one JSON object of metrics."""
    from transformer_jax import config, experiment

    resolved = experiment.resolve(config.load(arguments.config), arguments.overrides)
    print(json.dumps(experiment.evaluate(resolved, arguments.checkpoint)))
