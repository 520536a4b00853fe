"""`transformer-jax bench`: what a step of an experiment costs, measured."""

import argparse
import json

from transformer_jax.cli import main


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    main.add_processes(parser)
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed steps (default: %(default)s)")
    parser.add_argument("--fake-data", action="store_true", help="time the step alone, on random pixels")
    parser.add_argument("--inference", action="store_true", help="time the forward pass instead of the training step")


def run(arguments: argparse.Namespace) -> None:
    """Print one JSON object."""
    from transformer_jax import config, experiment
    from transformer_jax.tools import bench

    resolved = experiment.resolve(config.load(arguments.config), arguments.overrides)
    kind = "predict" if arguments.inference else "train"
    print(json.dumps(bench.measure(resolved, steps=arguments.steps, fake_data=arguments.fake_data, kind=kind)))
