"""Tiny TFDS data sets with the feature structures of the real ones, prepared without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from transformer_jax.data import builders


def png(image):
    """The image as a file object, the one form TFDS encodes without TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    file.seek(0)
    return file


def write(folder, name, features, examples, *, version="1.0.0", config=None):
    """Writes `{split: [example, ...]}` as `NAME[/CONFIG]/VERSION`, in the order given."""
    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, manager):
                return {split: self._generate_examples(split) for split in examples}

            def _generate_examples(self, split):
                yield from enumerate(dict(example) for example in examples[split])

        Builder.name = name
    builder = Builder(data_dir=str(folder), file_format=builders.FILE_FORMAT)
    builder.download_and_prepare()
    return builder


def grey(shape=(4, 4, 1), level=7):
    """An image of one level."""
    return np.full(shape, level, np.uint8)
