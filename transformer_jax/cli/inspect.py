"""`transformer-jax inspect`: what is in a checkpoint, and which public ones there are."""

import argparse
import json


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "path", nargs="?", metavar="PATH", help="run directory, checkpoint directory, .npz, .safetensors or hf:org/name"
    )
    what.add_argument("--known", action="store_true", help="list public models: where they are, layout, size")
    parser.add_argument("--json", action="store_true", help="one JSON object: format, model, conventions, leaves, ...")


def run(arguments: argparse.Namespace) -> None:
    """Print the description, or the table."""
    if arguments.known and not arguments.json:
        from transformer_jax.transfer import known

        return print(known.table())
    from transformer_jax.tools import inspection

    if arguments.known:
        return print(json.dumps(inspection.listing()))
    facts = inspection.describe(arguments.path)
    print(json.dumps(facts) if arguments.json else inspection.text(facts))
