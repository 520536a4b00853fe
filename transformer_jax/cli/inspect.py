"""`transformer-jax inspect`: what is in a checkpoint."""

import argparse
import json


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("path", metavar="PATH", help="run directory, checkpoint directory, .npz or .safetensors")
    parser.add_argument("--json", action="store_true", help="one JSON object: step, format, config, leaves")


def run(arguments: argparse.Namespace) -> None:
    """Print the description."""
    from transformer_jax.tools import inspection

    facts = inspection.describe(arguments.path)
    print(json.dumps(facts) if arguments.json else inspection.text(facts))
