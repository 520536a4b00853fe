"""TFDS data sets on disk: `tfds:NAME`, `tfds:NAME/CONFIG`, `tfds:NAME:VERSION`. TensorFlow is never imported.

A prepared data set is read from its directory alone, without its builder's code and without the network; images stay
encoded. The files are array_record, the one format of TFDS with random access that needs no TensorFlow.
"""

import fnmatch
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from transformer_jax import types
from transformer_jax.data import decoding, tfds_labels, views

_OURS = ("digits", "glyphs")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PREPARE = 'pip install "transformer-jax[prepare]"'


def open(
    name: str,
    split: str = "train",
    *,
    data_dir: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
    label_function: str | None = None,
    num_classes: int | None = None,
) -> "TfdsSource":
    """One base split of a prepared data set. `num_classes` is needed where the label is a bare integer.

    `label_function` names a row of `vtab_labels.LABELS`, which makes the label of other features. A label that is a
    sequence (`label_key="real_label"`) makes a multi-label source.
    """
    import tensorflow_datasets as tfds

    problem = missing(name, (), data_dir=data_dir)
    if problem:
        raise types.InputError(problem)
    directory = _directory(name, data_dir)
    assert directory is not None
    builder = tfds.builder_from_directory(str(directory))
    if split not in builder.info.splits:
        raise types.InputError(f"tfds:{name} has the splits {', '.join(builder.info.splits)}. Not: {split!r}.")
    if label_function is None:
        label: tfds_labels.Label = tfds_labels.Feature(builder.info.features, name, label_key, num_classes)
    else:
        label = tfds_labels.Derived(builder.info.features, name, label_function, num_classes)
    return TfdsSource(builder, name, split, image_key, label)


def missing(name: str, bases: Sequence[str], *, data_dir: str | None = None) -> str | None:
    """What to do when the data set is not prepared, or not in a format that can be read without TensorFlow."""
    root = _root(data_dir)
    directory = _directory(name, data_dir)
    if directory is None:
        base = name.split(":")[0]
        if base.split("/")[0] in _OURS:
            command = f"transformer-jax data prepare {base.split('/')[0]} --data-dir {shlex.quote(str(root))}"
        else:
            quoted, place = shlex.quote(name), shlex.quote(f"--data_dir={root}")
            command = f"{_PREPARE} && tfds build {quoted} --file_format=array_record {place}"
        return f"tfds:{name} is not prepared under {root}. Prepare it: {command}"
    if not any(".array_record" in entry.name for entry in directory.iterdir()):
        return (
            f"tfds:{name} at {directory} holds no array_record files, which are read without TensorFlow. Convert it:"
            f" {_PREPARE} && tfds convert_format {shlex.quote(f'--dataset_version_dir={directory}')}"
            " --out_file_format=array_record"
        )
    return None


class TfdsSource:
    """Records of one split; the image as its encoded bytes, nothing but image and label decoded."""

    in_memory = False

    def __init__(self, builder: Any, name: str, split: str, image_key: str, label: tfds_labels.Label):
        import tensorflow_datasets as tfds

        features = builder.info.features
        tfds_labels.require(features, name, image_key)
        self.num_classes, self.class_names = label.num_classes, label.class_names
        self.multilabel = label.multilabel
        self.name = f"tfds:{name} {split}"
        self._image_key, self._label = image_key, label
        self._named = "file_name" in features and features["file_name"].np_dtype == np.object_
        wanted = [image_key, *(["file_name"] if self._named else [])]
        self._features: Any = tfds.features.FeaturesDict({key: features[key] for key in wanted} | dict(label.features))
        self._decoders = {image_key: tfds.decode.SkipDecoding()}
        raw = tfds.core.decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split=split, deserialize_method=raw)
        self.fingerprint = f"tfds:{builder.info.full_name}:{split}:{len(self._records)}:{image_key}:{label.tag}"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            records = self._records.__getitems__([int(index) for index in indices])
            parsed = [self._features.deserialize_example_np(record, decoders=self._decoders) for record in records]
        except OSError:
            raise
        except Exception as error:
            raise decoding.BadImage(f"record {min(indices)} of {self.name}: {error}") from error
        return [self._example(index, example) for index, example in zip(indices, parsed, strict=True)]

    def _example(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        file = f" ({example['file_name'].decode()})" if self._named else ""
        image = example[self._image_key]
        if self._label.zeros_and_ones:
            image = np.where(decoding.decode(image, channels=1) > 0, np.uint8(255), np.uint8(0))
        return {"image": image, "label": self._label(example), "id": f"{self.name}[{index}]{file}"}

    def labels(self) -> Int64[np.ndarray, " batch"]:
        views.require_single(self)
        found = []
        for start in range(0, len(self), 1024):
            records = self._records.__getitems__(list(range(start, min(start + 1024, len(self)))))
            found += [self._label(self._label.features.deserialize_example_np(record)) for record in records]
        return np.array(found, np.int64)


def _root(data_dir: str | None) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _directory(name: str, data_dir: str | None) -> Path | None:
    """The newest version on disk that fits `NAME[/CONFIG][:VERSION]`; None when there is none."""
    base, _, version = name.partition(":")
    folder = _root(data_dir) / base
    found = _versions(folder, version or "*")
    if not found and "/" not in base and folder.is_dir():
        configs = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and _versions(entry, version or "*")]
        if len(configs) > 1:
            raise types.InputError(
                f"tfds:{name} is prepared in several configurations: {', '.join(entry.name for entry in configs)}."
                f" Name one: tfds:{base}/{configs[0].name}."
            )
        found = _versions(configs[0], version or "*") if configs else []
    return found[-1] if found else None


def _versions(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [
        entry
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name)
        and fnmatch.fnmatchcase(entry.name, pattern)
        and (entry / "dataset_info.json").is_file()
    ]
    return sorted(found, key=lambda entry: [int(number) for number in entry.name.split(".")])
