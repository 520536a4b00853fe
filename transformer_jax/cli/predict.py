"""`transformer-jax predict`: class probabilities for images, or logits for an array."""

import argparse


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="run directory or checkpoint of ours")
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="image files, preprocessed as in the run's evaluation"
    )
    parser.add_argument(
        "--array", metavar="X.npy", help="preprocessed images instead: float32 [n, height, width, channels]"
    )
    parser.add_argument("--logits", metavar="OUT.npy", help="write the logits, float32 [n, classes]")
    parser.add_argument("--top", type=int, default=5, help="classes to print for each image (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Print one line an image, write what was asked for."""
    from transformer_jax.tools import prediction

    for line in prediction.run(
        arguments.checkpoint,
        images=arguments.images,
        array=arguments.array,
        logits=arguments.logits,
        top=arguments.top,
        batch_size=arguments.batch_size,
    ):
        print(line)
