"""Your own folder of images: fine-tune a pretrained model on it, or train one from scratch.

Model     that of the weights, at its image size unless asked otherwise; from scratch ViT, B/16 at 224 x 224
Data      PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg, of which a tenth is set aside to judge
Recipe    the fine-tuning of the ViT paper (2010.11929, appendix B): SGD with momentum, cosine, no weight decay,
          clipping at 1; its batch of 512 and grid of rates are yours to set
Hardware  one accelerator; on a CPU take Ti/16 and a small size
Expected  UNVERIFIED: it depends on the images
Command   transformer-jax train --config experiments/transfer/folder.py:photos,weights=B_16.npz --workdir runs/photos

own_images.md beside this file leads from the photographs to a classifier in timm.
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")


def get_config(
    path: str, weights: str = "", variant: str = "", size: str = "", epochs: str = "20", batch: str = "64"
) -> ml_collections.ConfigDict:
    """`weights` is a run directory of ours, a .npz of Google's, a .safetensors of timm, Hugging Face or ours, or a name
    on the hub, `hf:org/name`; none: from scratch. `variant` and `size` are those of the weights unless they are given,
    and B/16 at 224 as long as the weights are not on this machine.
    """
    found = PARTS.expected(weights)
    pixels, images = size and PARTS.number("size", size), PARTS.number("batch", batch)
    model: dict[str, Any] = dict(found.model) if found else dict(name="vit", variant="B/16", image_size=224)
    model.update({key: value for key, value in (("variant", variant), ("image_size", pixels)) if value})
    scaling = PARTS.pixels(found)
    shape = model["image_size"]
    height, width = (shape, shape) if isinstance(shape, int) else shape
    decode = "decode" if model.get("channels", 3) == 3 else f"decode(channels={model['channels']})"
    parts = pathlib.Path(path).expanduser()
    source = dict(source=f"folder:{path}", arguments={} if (parts / "train").is_dir() else dict(val_fraction=0.1))

    config = ml_collections.ConfigDict()
    config.name = f"{parts.name}_{(model.get('variant') or model['name']).replace('/', '_')}"
    config.model = model
    # Photographs are large, and are decoded no larger than their crops need: faster, not pixel by pixel the papers'.
    crop = f"{decode} | inception_crop({shape}) | flip_lr | {scaling}"
    config.data = dict(**source, preprocess=crop, batch_size=images)
    config.optim = dict(name="sgd", momentum=0.9, clip_norm=1.0, weight_decay=0.0)
    config.schedule = dict(name="cosine", base=0.003, warmup="5%")
    config.train = dict(total=f"{epochs} epochs")
    central = f"resize_small({round(height * 8 / 7)}) | central_crop({height})"
    judged = f"{decode} | {central if height == width else f'resize({height}, {width})'} | {scaling}"
    config.evals = dict(val=dict(**source, split="val", preprocess=judged, batch_size=images, every="1 epoch"))
    config.checkpoint = dict(every="1 epoch", keep_best=("val/top1", "max"))
    if weights:
        config.init_from = dict(path=weights)
    return config
