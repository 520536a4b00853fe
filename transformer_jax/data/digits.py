"""The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels, ten classes, nothing to download.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" data (13 writers): 32x32 bitmaps whose 4x4
blocks were counted. Counts 0..16 are scaled here to 0..255.

The split is ours and fixed: 1,257 train, 180 validation, 360 test. Examples are ordered so that every stretch of
the order holds the classes in their overall proportions, within a class by a hash of the example's number; the three
splits are stretches of that order. So the split is stratified, and no NumPy or scikit-learn version can change it.
"""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from transformer_jax import paths, types
from transformer_jax.data import arrays, order

SPLITS = {"train": 1257, "validation": 180, "test": 360}
CLASS_NAMES = tuple("0123456789")
_SEED = 0
_SIDE, _LARGEST = 8, 16


def open(split: str = "train") -> arrays.ArraySource:
    """One whole split, in memory: uint8 images of 8x8x1."""
    if split not in SPLITS:
        raise types.InputError(
            f"digits has the splits {', '.join(SPLITS)}. Not: {split!r}.{paths.did_you_mean(split, SPLITS)}"
        )
    images, labels = _ordered()
    stop = np.cumsum(list(SPLITS.values()))[list(SPLITS).index(split)]
    mine = slice(stop - SPLITS[split], stop)
    return arrays.ArraySource(images[mine], labels[mine], name="digits", split=split, class_names=CLASS_NAMES)


def stratified_order(labels: Int64[np.ndarray, " batch"], *, seed: int) -> Int64[np.ndarray, " batch"]:
    """Indices in an order whose every stretch holds the classes in (nearly) their overall proportions."""
    placed: list[tuple[float, int, int]] = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda index: order.mix(seed, index))
        placed += [((rank + 0.5) / len(members), label, index) for rank, index in enumerate(members)]
    return np.array([index for _, _, index in sorted(placed)], np.int64)


@functools.cache
def _ordered() -> tuple[UInt8[np.ndarray, "batch 8 8 1"], Int64[np.ndarray, " batch"]]:
    table = _table()
    counts, labels = table[:, :-1], table[:, -1]
    images = ((counts * 255 + _LARGEST // 2) // _LARGEST).astype(np.uint8).reshape(-1, _SIDE, _SIDE, 1)
    at = stratified_order(labels, seed=_SEED)
    images, labels = images[at], labels[at]
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def _table() -> Int64[np.ndarray, "batch columns"]:
    """scikit-learn's own file (importing scikit-learn takes a second): one example a row, 64 counts and the label."""
    found = importlib.util.find_spec("sklearn")
    folder = None if found is None or found.origin is None else Path(found.origin).parent / "datasets" / "data"
    if folder is None or not (folder / "digits.csv.gz").exists():
        raise types.InputError(
            "digits is read from the files of scikit-learn, which must be installed with its data. "
            f"Not found: {'scikit-learn' if folder is None else folder / 'digits.csv.gz'}. "
            "Remedy: pip install --force-reinstall scikit-learn."
        )
    with gzip.open(folder / "digits.csv.gz", "rt") as rows:
        return np.loadtxt(rows, delimiter=",", dtype=np.int64)
