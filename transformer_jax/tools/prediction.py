"""Class probabilities for image files, or logits for an array, from a checkpoint and nothing else."""

import contextlib
import csv
import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent import futures
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax import experiment, types
from transformer_jax.data import decoding, folder, image_ops, loading, operation, ops
from transformer_jax.tools import attention_maps

Ranked = list[tuple[str, float]]
"""Class and probability, the most probable first."""
Report = Callable[[str], object]
_log = logging.getLogger(__name__)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def run(
    checkpoint: str,
    *,
    images: Sequence[str] = (),
    array: str | None = None,
    preprocess: str | None = None,
    logits: str | None = None,
    table: str | None = None,
    attention: str | None = None,
    top: int = 5,
    batch_size: int = 32,
    report: Report = _log.warning,
) -> Iterator[str]:
    """One line an image: its name, then `class probability` for the `top` classes.

    The model, the preprocessing and the class names come out of the checkpoint. Written if asked for: `logits` as .npy,
    `table` as .csv, both whole at the end or not at all, and a picture of the `attention` an image. An image that
    cannot be read is told to `report`; it has no line and no picture, and its logits are NaN.
    """
    _check(images, array, preprocess, top=top, batch_size=batch_size)
    _check_written({"--logits": logits, "--csv": table, "--attention": attention})
    pixels = None if array is None else _read_array(array)
    names = _expand(images) if pixels is None else [f"{array}[{i}]" for i in range(len(pixels))]
    predictor = experiment.Predictor(checkpoint, preprocess=preprocess)
    if attention is not None:
        predictor.require_attention()
    batches = _read_batches(names, predictor, batch_size, report) if pixels is None else [(range(len(names)), pixels)]
    with _table(table, min(top, len(predictor.class_names))) as write, _stack(logits, len(names)) as keep:
        for numbers, batch in batches:
            found = predictor.logits(batch, batch_size=batch_size)
            keep(numbers, found)
            for number, image, row in zip(numbers, batch, found, strict=True):
                ranked = _ranked(predictor.probabilities(row), predictor.class_names, top)
                write(names[number], ranked)
                if attention is not None:
                    _draw(predictor, image, ranked, _numbered(attention, number, len(names)))
                yield f"{names[number]}  {'  '.join(f'{word} {probability:.4f}' for word, probability in ranked)}"


def _check(images: Sequence[str], array: str | None, preprocess: str | None, *, top: int, batch_size: int) -> None:
    if bool(images) == (array is not None):
        raise types.InputError("predict takes image files or --array X.npy: one of the two, and not both.")
    if array is not None and preprocess is not None:
        raise types.InputError("--array holds preprocessed images, so --preprocess goes with image files only.")
    if batch_size < 1 or top < 1:
        raise types.InputError(f"--batch-size and --top must be at least 1: they are {batch_size} and {top}.")


def _check_written(written: Mapping[str, str | None]) -> None:
    """`InputError` unless what an option names can be written."""
    for option, path in written.items():
        if path is not None and not Path(path).expanduser().parent.is_dir():
            raise types.InputError(f"{option} must lie in a directory that exists: {path!r} does not.")
        if path is not None and Path(path).expanduser().is_dir():
            raise types.InputError(f"{option} must name a file: {path!r} is a directory.")
    attention = written["--attention"]
    if attention is not None and Path(attention).suffix.lower() not in _PICTURES:
        raise types.InputError(f"--attention names a picture ({' '.join(_PICTURES)}): {attention!r} does not.")


def _expand(images: Sequence[str]) -> list[str]:
    """The files, and in the place of a directory the images at any depth below it, sorted."""
    missing = [path for path in images if not Path(path).expanduser().exists()]
    if missing:
        raise types.InputError(f"Every image must be a file: {', '.join(missing)} do not exist.")
    files = []
    for path in images:
        here = Path(path).expanduser()
        if not here.is_dir():
            files.append(path)
            continue
        below = sorted(str(file) for file in here.rglob("*") if file.suffix.lower() in folder.SUFFIXES)
        if not below:
            raise types.InputError(f"A directory must hold images ({' '.join(folder.SUFFIXES)}): {path!r} holds none.")
        files += below
    return files


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


def _read_batches(
    names: Sequence[str], predictor: experiment.Predictor, batch_size: int, report: Report
) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Numbers and pixels of the good ones of `batch_size` images at a time: a large folder needs little memory."""
    plan = loading.plan(ops.parse(predictor.preprocess))
    steps = [*plan.fixed, *plan.drawn]
    if not any(isinstance(op, image_ops.Decode | image_ops.DecodeAndInceptionCrop) for op in steps):
        steps.insert(0, image_ops.Decode(channels=predictor.channels))  # embedded data has pixels from the start
    read = 0
    with futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(names), batch_size):
            good = {}
            for number, image in enumerate(pool.map(_read_image, names[start : start + batch_size], repeat(steps))):
                if isinstance(image, str):
                    report(f"An image must be readable: {names[start + number]}: {image}. It is left out.")
                else:
                    good[start + number] = image
            shapes = sorted({image.shape for image in good.values()})
            if len(shapes) > 1:
                raise types.InputError(
                    f"Images must have one shape after their preprocessing: {predictor.preprocess!r} leaves"
                    f" {shapes[:3]}. Add a resize or a crop to it."
                )
            if good:
                read += len(good)
                yield list(good), np.stack(list(good.values()))
    if not read:
        raise types.InputError("predict needs an image that can be read: there is none, and nothing was written.")


def _read_image(path: str, steps: Sequence[operation.Op]) -> np.ndarray | str:
    """The preprocessed pixels, or why the file has none."""
    rng = np.random.default_rng(0)
    try:
        example: dict[str, Any] = {"image": Path(path).expanduser().read_bytes(), "label": 0, "id": path}
        for op in steps:
            example = op(example, rng)
    except (decoding.BadImage, OSError) as error:
        return str(error)
    return np.asarray(example["image"])


def _ranked(probability: np.ndarray, class_names: Sequence[str], top: int) -> Ranked:
    best = np.argsort(-probability, kind="stable")[:top]
    return [(class_names[i], float(probability[i])) for i in best]


@contextlib.contextmanager
def _whole(path: str) -> Generator[Path]:
    """Where to write what `path` will hold: it takes that name at the end, and whatever stops it leaves nothing."""
    here = Path(path).expanduser()
    if here.exists() and not here.is_file():  # a pipe or a device is written as it is
        yield here
        return
    here = here.resolve()
    draft = here.with_name(f".{here.name}.{os.getpid()}.tmp")
    try:
        yield draft
        draft.replace(here)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _stack(path: str | None, images: int) -> Generator[Callable[[Sequence[int], np.ndarray], None]]:
    """What takes the logits of the images of these numbers, to be one array in the end."""
    kept: list[tuple[Sequence[int], np.ndarray]] = []
    if path is None:
        yield lambda numbers, logits: None
        return
    with _whole(path if path.endswith(".npy") else f"{path}.npy") as place, place.open("wb") as file:
        yield lambda numbers, logits: kept.append((numbers, logits))
        every = np.full((images, kept[0][1].shape[-1]), np.nan, np.float32)
        for numbers, logits in kept:
            every[list(numbers)] = logits
        np.save(file, every)


@contextlib.contextmanager
def _table(path: str | None, top: int) -> Generator[Callable[[str, Ranked], None]]:
    """What writes a row an image: `path,class,probability`, then `class_2,probability_2` and so on."""
    if path is None:
        yield lambda name, ranked: None
        return
    with _whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        more = [f"{word}_{rank}" for rank in range(2, top + 1) for word in ("class", "probability")]
        rows.writerow(["path", "class", "probability", *more])
        yield lambda name, ranked: rows.writerow([name, *(cell for w, p in ranked for cell in (w, f"{p:.6f}"))])


def _numbered(path: str, number: int, total: int) -> Path:
    """`OUT.png` for the only image, `OUT_0.png`, `OUT_1.png`, ... for several."""
    here = Path(path).expanduser()
    return here if total == 1 else here.with_stem(f"{here.stem}_{number}")


def _draw(predictor: experiment.Predictor, image: np.ndarray, ranked: Ranked, path: str | os.PathLike[str]) -> None:
    layers, pooling = predictor.attention(image)
    found = attention_maps.Attention(layers, pooling)
    title = f"{ranked[0][0]} {ranked[0][1]:.4f}"
    picture = attention_maps.visible(image, predictor.program.pixel_range)
    attention_maps.sheet(picture, found, predictor.program.model.config.grid, title=title).save(path)
