"""The TFDS builder of `digits`."""

from typing import Any

import tensorflow_datasets as tfds

from transformer_jax.data import digits
from transformer_jax.data.builders import images

_CITATION = """
@misc{alpaydin1998optical,
  title={Optical Recognition of Handwritten Digits},
  author={Alpaydin, E. and Kaynak, C.},
  publisher={UCI Machine Learning Repository},
  year={1998},
  doi={10.24432/C50P49}
}
"""


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8x8 pixels, from scikit-learn, with our fixed stratified split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return images.info(
            self,
            side=8,
            class_names=digits.CLASS_NAMES,
            description=digits.__doc__,
            citation=_CITATION,
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in digits.SPLITS}

    def _generate_examples(self, split: str) -> Any:
        return images.examples(digits.open(split))


def builder(*, data_dir: str, file_format: str) -> Digits:
    """The builder, ready to prepare."""
    return Digits(data_dir=data_dir, file_format=file_format)
