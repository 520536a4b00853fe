"""Whole networks, one file each, and the table that names them."""

from typing import Any, NamedTuple

from transformer_jax.models import resnet, vit


class Family(NamedTuple):
    """A config (a frozen dataclass of plain data) and the module it configures, `model(config, *, rngs)`."""

    config: type[Any]
    model: type[Any]


MODELS: dict[str, Family] = {
    "vit": Family(vit.Config, vit.ViT),
    "resnet": Family(resnet.Config, resnet.ResNet),
}
