"""`transformer-jax predict`: class probabilities for images, or logits for an array."""

import argparse
import sys


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="run directory or checkpoint of ours, or a classifier's .npz or .safetensors (Google, timm, Hugging Face)",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files, or directories of them, preprocessed as in the run's evaluation",
    )
    parser.add_argument(
        "--array", metavar="X.npy", help="preprocessed images instead: float32 [n, height, width, channels]"
    )
    parser.add_argument(
        "--preprocess",
        metavar="STRING",
        help="another preprocessing; of weights without a run it is by default the central crop of an image a seventh"
        " larger, pixels scaled as their source says",
    )
    parser.add_argument(
        "--logits", metavar="OUT.npy", help="write the logits, float32 [n, classes], NaN where an image cannot be read"
    )
    parser.add_argument(
        "--csv", metavar="OUT.csv", help="write a table: path,class,probability,class_2,probability_2,... up to --top"
    )
    parser.add_argument(
        "--attention",
        metavar="OUT.png",
        help="draw where the model looks over each image: the attention rolled out over all layers (2005.00928), and"
        " every head of the last; of several images OUT_0.png, OUT_1.png, ... in their order",
    )
    parser.add_argument("--top", type=int, default=5, help="classes to print for each image (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Print one line an image, write what was asked for; 1 if an image could not be read."""
    from transformer_jax.tools import prediction

    unreadable = []

    def report(message: str) -> None:
        unreadable.append(message)
        print(f"transformer-jax predict: {message}", file=sys.stderr)

    for line in prediction.run(
        arguments.checkpoint,
        images=arguments.images,
        array=arguments.array,
        preprocess=arguments.preprocess,
        logits=arguments.logits,
        table=arguments.csv,
        attention=arguments.attention,
        top=arguments.top,
        batch_size=arguments.batch_size,
        report=report,
    ):
        print(line)
    if unreadable:
        print(f"transformer-jax predict: {len(unreadable)} images could not be read, all others were.", file=sys.stderr)
    return 1 if unreadable else 0
