"""The TFDS builder of `glyphs`: one configuration a (size, image size, seed)."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from transformer_jax.data import glyphs
from transformer_jax.data.builders import images


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """The arguments of `glyphs.open`; the name of the configuration spells them out."""

    name: str = ""
    size: int = 200_000
    image_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        self.name = f"{self.size}_{self.image_size}px_seed{self.seed}"
        self.description = f"{self.size} training examples of {self.image_size}x{self.image_size}, seed {self.seed}."


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Letters and digits rendered from the fonts of matplotlib: see `transformer_jax.data.glyphs`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [Config()]

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.image_size
        return images.info(self, side=side, class_names=glyphs.CLASS_NAMES, description=glyphs.__doc__)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in glyphs.SPLITS}

    def _generate_examples(self, split: str) -> Any:
        config = self.builder_config
        source = glyphs.open(split, size=config.size, image_size=config.image_size, seed=config.seed)
        return images.examples(source)


def builder(*, data_dir: str, file_format: str, size: int = 200_000, image_size: int = 16, seed: int = 0) -> Glyphs:
    """The builder of one configuration, ready to prepare."""
    config = Config(size=size, image_size=image_size, seed=seed)
    return Glyphs(config=config, data_dir=data_dir, file_format=file_format)
