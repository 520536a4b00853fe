"""What of a TFDS example is its label: a feature, a sequence of classes, or what VTAB makes of other features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int32

from transformer_jax import paths, types
from transformer_jax.data import vtab_labels


def require(features: Any, name: str, key: str) -> None:
    """`InputError` unless the data set `name` has this feature."""
    if key not in features:
        raise types.InputError(
            f"tfds:{name} has no feature {key!r}.{paths.did_you_mean(key, features)} It has:"
            f" {', '.join(features)}. Set image_key and label_key."
        )


class Feature:
    """A feature that is the label, or, when it is a sequence, the labels."""

    zeros_and_ones = False

    def __init__(self, features: Any, name: str, key: str, num_classes: int | None):
        import tensorflow_datasets as tfds

        require(features, name, key)
        feature = features[key]
        self.features: Any = tfds.features.FeaturesDict({key: feature})
        classes = num_classes or getattr(feature, "num_classes", None)
        if classes is None:
            raise types.InputError(f"The label {key!r} of tfds:{name} is no ClassLabel. Set num_classes.")
        self.num_classes: int = classes
        self.class_names: tuple[str, ...] = tuple(getattr(feature, "names", None) or map(str, range(classes)))
        self.multilabel = isinstance(feature, tfds.features.Sequence)
        self.tag = key

    def __call__(self, example: Mapping[str, Any]) -> int | Int32[np.ndarray, " labels"]:
        found = example[self.tag]
        return np.array(found, np.int32) if self.multilabel else int(found)


class Derived:
    """A label that follows from other features: a row of `vtab_labels.LABELS`."""

    multilabel = False

    def __init__(self, features: Any, name: str, function: str, num_classes: int | None):
        import tensorflow_datasets as tfds

        self._row = vtab_labels.find(function)
        self.zeros_and_ones = self._row.zeros_and_ones
        self.class_names: tuple[str, ...] = self._row.class_names
        self.num_classes = len(self.class_names)
        if num_classes not in (None, self.num_classes):
            raise types.InputError(
                f"{function} makes {self.num_classes} classes. Leave num_classes out, or change it: {num_classes}."
            )
        wanted: dict[str, Any] = {}
        for path in self._row.features:
            key, _, field = path.partition("/")
            if key not in features or (field and field not in getattr(features[key], "feature", ())):
                raise types.InputError(
                    f"{function} reads the feature {path} of tfds:{self._row.data_set}. tfds:{name} has:"
                    f" {', '.join(features)}. Leave label_function out, or name another data set."
                )
            wanted.setdefault(key, {})[field] = features[key].feature[field] if field else features[key]
        self.features: Any = tfds.features.FeaturesDict(
            {k: fields.get("") or tfds.features.Sequence(fields) for k, fields in wanted.items()}
        )
        self.tag = self._function = function

    def __call__(self, example: Mapping[str, Any]) -> int:
        arrays = []
        for path in self._row.features:
            key, _, field = path.partition("/")
            arrays.append(np.asarray(example[key][field] if field else example[key]))
        label = self._row.label(*arrays)
        if not 0 <= label < self.num_classes:
            raise types.InputError(
                f"{self._function} makes labels in 0..{self.num_classes - 1}, here {label}: not the features of"
                f" tfds:{self._row.data_set}. Check the data set."
            )
        return label


Label = Feature | Derived
