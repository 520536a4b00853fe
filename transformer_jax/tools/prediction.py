"""Class probabilities for image files, or logits for an array, from a checkpoint of ours and nothing else."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax import experiment, types
from transformer_jax.data import decoding, image_ops, loading, operation, ops


def run(
    checkpoint: str,
    *,
    images: Sequence[str] = (),
    array: str | None = None,
    logits: str | None = None,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[str]:
    """One line an image: its name, then `class probability` for the `top` classes. Writes `logits` as .npy if asked.

    The model, the preprocessing of its first evaluator and the class names come out of the checkpoint.
    """
    if bool(images) == (array is not None):
        raise types.InputError("predict takes image files or --array X.npy: one of the two, and not both.")
    if batch_size < 1 or top < 1:
        raise types.InputError(f"--batch-size and --top must be at least 1: they are {batch_size} and {top}.")
    if logits is not None and not Path(logits).expanduser().parent.is_dir():
        raise types.InputError(f"--logits must lie in a directory that exists: {logits!r} does not.")
    predictor = experiment.Predictor(checkpoint)
    pixels = _read_array(array) if array is not None else _read_images(images, predictor)
    names = list(images) or [f"{array}[{i}]" for i in range(len(pixels))]
    found = predictor.logits(pixels, batch_size=batch_size)
    if logits is not None:
        np.save(Path(logits).expanduser(), found)
    for name, row in zip(names, found, strict=True):
        yield f"{name}  {_ranked(predictor.probabilities(row), predictor.class_names, top)}"


def _read_array(path: str) -> np.ndarray:
    if not Path(path).expanduser().is_file():
        raise types.InputError(f"--array must name a .npy file: {path!r} does not exist.")
    try:
        pixels = np.load(Path(path).expanduser(), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise types.InputError(f"--array must be a .npy file of numbers: {path!r} cannot be read ({error}).") from None
    if not isinstance(pixels, np.ndarray):
        raise types.InputError(f"--array must be a .npy file with one array: {path!r} is an archive.")
    if pixels.dtype != np.float32 or pixels.ndim != 4 or not len(pixels):
        raise types.InputError(
            "--array must hold preprocessed images, float32 [n, height, width, channels]:"
            f" {path!r} holds {pixels.dtype} {list(pixels.shape)}."
        )
    return pixels


def _read_images(paths: Sequence[str], predictor: Any) -> np.ndarray:
    """The files, preprocessed as in the evaluation of the run."""
    missing = [path for path in paths if not Path(path).expanduser().is_file()]
    if missing:
        raise types.InputError(f"Every image must be a file: {', '.join(missing)} do not exist.")
    plan = loading.plan(ops.parse(predictor.preprocess))
    todo = [*plan.fixed, *plan.drawn]
    if not any(isinstance(op, image_ops.Decode) for op in todo):  # a recipe of embedded data has pixels from the start
        todo.insert(0, image_ops.Decode(channels=predictor.channels))
    return np.stack([_read_image(path, todo) for path in paths])


def _read_image(path: str, todo: Sequence[operation.Op]) -> np.ndarray:
    example: dict[str, Any] = {"image": Path(path).expanduser().read_bytes(), "label": 0, "id": path}
    rng = np.random.default_rng(0)
    try:
        for op in todo:
            example = op(example, rng)
    except decoding.BadImage as error:
        raise types.InputError(f"An image must be readable: {path}: {error}. Mend it or leave it out.") from error
    return np.asarray(example["image"])


def _ranked(probability: np.ndarray, class_names: Sequence[str], top: int) -> str:
    """The most probable classes, best first."""
    best = np.argsort(-probability, kind="stable")[:top]
    return "  ".join(f"{class_names[i]} {probability[i]:.4f}" for i in best)
