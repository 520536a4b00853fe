"""TFDS builders of the embedded data sets: real files on disk, prepared and read without TensorFlow.

`prepare("digits", data_dir)` writes array_record files that `tfds:digits` and `tfds.data_source` read. Image features
are given PNG file objects, the one form TFDS encodes without TensorFlow.
"""

import importlib
import inspect
import os
from pathlib import Path
from typing import Any

from transformer_jax import paths, types

BUILDERS = {
    "digits": "transformer_jax.data.builders.digits",
    "glyphs": "transformer_jax.data.builders.glyphs",
}
FILE_FORMAT = "array_record"


def prepare(name: str, data_dir: str | os.PathLike[str], **options: Any) -> Path:
    """Writes the data set under `data_dir` unless it is there; returns its directory.

    `options` are those of the data set (`glyphs`: `size`, `seed`, `image_size`).
    """
    if name not in BUILDERS:
        raise types.InputError(
            f"The data sets that can be prepared are {', '.join(BUILDERS)}. Not: {name!r}."
            f"{paths.did_you_mean(name, BUILDERS)} Anything else is prepared by TFDS itself: tfds build {name}"
        )
    module = importlib.import_module(BUILDERS[name])
    takes = [key for key in inspect.signature(module.builder).parameters if key not in ("data_dir", "file_format")]
    for key in options:
        if key not in takes:
            raise types.InputError(
                f"The data set {name!r} does not take {key!r}.{paths.did_you_mean(key, takes)}"
                f" It takes: {', '.join(takes) or 'no options'}."
            )
    builder = module.builder(data_dir=os.path.expanduser(data_dir), file_format=FILE_FORMAT, **options)
    builder.download_and_prepare()
    return Path(builder.data_dir)
