"""What a model said of every example, on disk: `RUN/predictions/NAME.npz`, from which its numbers can be recomputed.

`label` is a class an example, or a row of booleans where it may have several. `predicted` (and `probability`, `loss`)
belong to a classifier; evaluators of frozen features have a `predicted_METRIC` for each number, with `_seedN` where
the number is a mean over seeds: `predicted_5shot_seed0`, `predicted_10nn`.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax.parallel import multihost

FOLDER = "predictions"
_SEED = re.compile(r"_seed\d+$")


def path(directory: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The file of an evaluator in a run directory."""
    return pathlib.Path(directory) / FOLDER / f"{name}.npz"


def write(directory: str | os.PathLike[str], name: str, rows: Mapping[str, np.ndarray]) -> pathlib.Path:
    """The rows of an evaluator into a run directory, whole or not at all, by the first process. Returns the file."""
    file = path(directory, name)
    if not multihost.main():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".tmp")
    arrays: dict[str, Any] = dict(rows)
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    os.replace(partial, file)
    return file


def accuracies(rows: Mapping[str, np.ndarray]) -> list[str]:
    """The metrics that are shares of right predictions: `["top1"]`, or `["1shot", "5shot"]`."""
    found = {"top1": None} if "predicted" in rows else {}
    prefix = "predicted_"
    return list(found | {_SEED.sub("", key.removeprefix(prefix)): None for key in rows if key.startswith(prefix)})
