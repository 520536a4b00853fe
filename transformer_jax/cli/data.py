"""`transformer-jax data`: list, prepare, preview."""

import argparse
from typing import Any


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|prepare|preview")
    actions.add_parser("list", help="the data sets that need no download, and the forms `source` takes")
    prepare = actions.add_parser("prepare", help="write an embedded data set as TFDS files (array_record)")
    prepare.add_argument("name", metavar="NAME", help="digits or glyphs")
    prepare.add_argument("--data-dir", default="~/tensorflow_datasets", metavar="DIR", help="default: %(default)s")
    for name in ("size", "image-size", "seed"):
        prepare.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, metavar="N", help="of glyphs")
    preview = actions.add_parser("preview", help="a PNG contact sheet of a data set after its preprocessing")
    preview.add_argument("source", metavar="SOURCE", help="digits, glyphs, tfds:NAME or folder:PATH")
    preview.add_argument("--split", default="train", help="default: %(default)s")
    preview.add_argument("--preprocess", default="decode", metavar="STRING", help="default: %(default)s")
    preview.add_argument("--count", type=int, default=64, help="images on the sheet (default: %(default)s)")
    preview.add_argument(
        "--argument",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the source: val_fraction=0.1, labels=50",
    )
    preview.add_argument("--data-dir", metavar="DIR", help="where TFDS files lie")
    preview.add_argument("--out", default="preview.png", metavar="PNG", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Do the action."""
    if arguments.action == "list":
        from transformer_jax.data import sources

        print(sources.listing())
    elif arguments.action == "prepare":
        from transformer_jax.data import builders

        given = {name: value for name, value in vars(arguments).items() if name in ("size", "image_size", "seed")}
        print(f"prepared {builders.prepare(arguments.name, arguments.data_dir, **given)}")
    else:
        from transformer_jax.data import preview, sources

        given = dict(_pair(word) for word in arguments.argument)
        source = sources.open_source(arguments.source, arguments.split, data_dir=arguments.data_dir, **given)
        preview.contact_sheet(source, arguments.preprocess, arguments.out, count=arguments.count)
        print(f"wrote {arguments.out}")


def _pair(word: str) -> tuple[str, Any]:
    """`"labels=50"` as `("labels", 50)`."""
    from transformer_jax import config, types

    name, equals, text = word.partition("=")
    if not equals or not name.isidentifier() or name in ("spec", "split", "data_dir"):
        raise types.InputError(
            f"--argument takes KEY=VALUE for a keyword of the source such as labels=50, not {word!r}."
        )
    return name, config.parse(text, Any, name)
