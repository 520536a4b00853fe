"""`transformer-jax plan`: compile the training step for hardware that is not there; say whether it fits and how long
the experiment takes."""

import argparse
import json
from typing import Any

from transformer_jax.cli import main


class _Help(argparse.HelpFormatter):
    """The usual help, and then the keys of `--json`."""

    whole = False

    def start_section(self, heading: str | None) -> None:
        self.whole = True  # a line of usage, as errors print it, has no sections
        super().start_section(heading)

    def format_help(self) -> str:
        said = super().format_help()
        if not self.whole:
            return said
        from transformer_jax.tools.plan import report

        return f"{said}\nkeys of --json, and how each is got (null where it does not apply):\n{report.explain()}\n"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    main.add_config(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:SHAPE",
        help="chips to compile for: v3:16x16, v5p:4x4x4, v5e:16x16*2 (two slices), a GPU such as h100:8",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="examples of a step (default: the recipe's)")
    parser.add_argument("--examples", type=int, metavar="N", help="examples of an epoch (default: the recipe's)")
    parser.add_argument("--classes", type=int, metavar="N", help="classes of the data (default: the recipe's, or 1000)")
    parser.add_argument("--search", action="store_true", help="find the largest batch and the cheapest remat and mesh")
    parser.add_argument("--calibrate", metavar="RUN_DIR", help="replace the estimate by what steps of this run took")
    parser.add_argument("--prices", metavar="FILE", help="your prices of a chip-hour: cost of the whole experiment")
    parser.add_argument("--json", action="store_true", help="one JSON object, with the keys below")
    parser.formatter_class = _Help


def run(arguments: argparse.Namespace) -> None:
    """Print the plan."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing runs: no accelerator is started, or waited for
    from transformer_jax import config, experiment, types
    from transformer_jax.tools.plan import page, report, topology

    for name in ("batch", "examples", "classes"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise types.InputError(f"--{name} must be at least 1: it is {getattr(arguments, name)}.")
    settings = experiment.resolve(config.load(arguments.config), arguments.overrides)
    settings["data"] = dict(settings["data"], examples=arguments.examples or settings["data"]["examples"])
    if arguments.classes:
        settings["model"] = dict(settings["model"], num_classes=arguments.classes)
    wanted: dict[str, Any] = dict(batch_size=arguments.batch, adjust=_adjust(arguments.calibrate, arguments.topology))
    if arguments.prices:
        from transformer_jax.tools.plan import prices

        wanted["prices"] = prices.load(arguments.prices)
    if arguments.search:
        from transformer_jax.tools.plan import search

        found = search.run(settings, topology.describe(arguments.topology), **wanted)
        text = found.pop("text")
    else:
        found = report.plan(settings, arguments.topology, **wanted)
        text = page.text(found)
    print(json.dumps(found) if arguments.json else text)


def _adjust(run_dir: str | None, name: str) -> Any:
    """What replaces the estimate: the steps of a run, or of an earlier one on that kind of chip."""
    from transformer_jax.tools.plan import calibration, topology

    kind = topology.parse(name)[0].kind  # what is wrong with a run is said before anything is compiled
    return calibration.known if run_dir is None else calibration.of_run(run_dir, kind)
