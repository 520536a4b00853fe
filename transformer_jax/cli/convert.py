"""`transformer-jax convert`: weights of one format as a file of another, with a logit check."""

import argparse


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("source", metavar="SRC", help="run directory, checkpoint, .npz, .safetensors or hf:org/name")
    parser.add_argument(
        "target", metavar="DST", help="what is written: a file; a folder for timm and hf; not there yet"
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="FORMAT",
        help="npz: as Google's code, in the layout the weights came from; timm, hf: .safetensors with its config.json;"
        " safetensors: our names; orbax: a checkpoint directory; or the name of a layout (linen, big_vision, ...)",
    )
    parser.add_argument("--head", default="keep", metavar="keep|drop", help="default: %(default)s")
    parser.add_argument("--image-size", type=int, metavar="N", help="resize the position embedding to these images")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X", help="of the logit check (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert and print the report; 1 when both models do not compute the same."""
    from transformer_jax.tools import conversion

    found = conversion.run(
        arguments.source,
        arguments.target,
        to=arguments.to,
        head=arguments.head,
        image_size=arguments.image_size,
        tolerance=arguments.tolerance,
    )
    print(found.text)
    return 0 if found.passed else 1
