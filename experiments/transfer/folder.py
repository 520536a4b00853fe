"""Your own folder of images: fine-tune a pretrained ViT on it, or train one from scratch.

Model     ViT, B/16 at 224 x 224 unless asked otherwise
Data      PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg, of which a tenth is set aside to judge
Recipe    the fine-tuning of the ViT paper (2010.11929, appendix B): SGD with momentum, cosine, no weight decay,
          clipping at 1; its batch of 512 and grid of rates are yours to set
Hardware  one accelerator; on a CPU take variant=Ti/16 and a small size
Expected  UNVERIFIED: it depends on the images
Command   transformer-jax train --config experiments/transfer/folder.py:photos,weights=B_16.npz --workdir runs/photos
"""

import pathlib

import ml_collections


def get_config(
    path: str, weights: str = "", variant: str = "B/16", size: str = "224", epochs: str = "20"
) -> ml_collections.ConfigDict:
    """`weights` is a run directory of ours, a Google .npz or a .safetensors with our names; none: from scratch."""
    pixels, parts = int(size), pathlib.Path(path).expanduser()
    split_by_hand = (parts / "train").is_dir()
    source = dict(source=f"folder:{path}", arguments={} if split_by_hand else dict(val_fraction=0.1))
    config = ml_collections.ConfigDict()
    config.name = f"{parts.name}_{variant.replace('/', '_')}"
    config.model = dict(name="vit", variant=variant, image_size=pixels)
    config.data = dict(
        **source, preprocess=f"decode | inception_crop({pixels}) | flip_lr | value_range(-1, 1)", batch_size=64
    )
    config.optim = dict(name="sgd", momentum=0.9, clip_norm=1.0, weight_decay=0.0)
    config.schedule = dict(name="cosine", base=0.003, warmup="5%")
    config.train = dict(total=f"{epochs} epochs")
    judged = f"decode | resize_small({pixels * 8 // 7}) | central_crop({pixels}) | value_range(-1, 1)"
    config.evals = dict(val=dict(**source, split="val", preprocess=judged, batch_size=64, every="1 epoch"))
    config.checkpoint = dict(every="1 epoch", keep_best=("val/top1", "max"))
    if weights:
        config.init_from = dict(path=weights)
    return config
