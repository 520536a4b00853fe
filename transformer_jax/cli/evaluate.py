"""`transformer-jax evaluate`: the evaluators of an experiment file, over a checkpoint."""

import argparse
import json
import math
import sys
from pathlib import Path

from transformer_jax.cli import main


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    main.add_processes(parser)
    parser.epilog = f"One JSON object is printed: a number that is not finite (NaN) is null there. {parser.epilog}"
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="run directory, checkpoint or weights file")
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html there: worst classes, confusions, the most confident errors as images; and the"
        " predictions of evaluators that have predictions=True",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print one JSON object of metrics, accuracies with the ends of their 95 % bootstrap interval.

    What is not finite is null, since JSON has no name for it.
    """
    from transformer_jax import config, experiment
    from transformer_jax.parallel import multihost, together
    from transformer_jax.tools import judgement

    resolved, shared = experiment.resolve(config.load(arguments.config), arguments.overrides), experiment.Shared()
    asked = arguments.report
    folder = None if asked is None else Path(together.by_first(lambda: str(judgement.folder(asked))))
    found = experiment.judge(resolved, arguments.checkpoint, shared=shared, folder=folder)
    finite = {name: value if math.isfinite(value) else None for name, value in found.with_intervals().items()}
    print(json.dumps(finite, allow_nan=False))
    if folder is not None and multihost.main():
        page = judgement.write(folder, resolved, found, shared=shared, subtitle=arguments.checkpoint)
        print(f"wrote {page}", file=sys.stderr)
