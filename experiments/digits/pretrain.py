"""Pretrain a small ViT on rendered glyphs: the embedded stand-in for JFT, nothing to download.

Model     width 64, 4 blocks, 4 heads, patch 4 at 16 x 16 pixels: 16 tokens
Data      200,000 letters and digits of 62 classes, drawn from the fonts of matplotlib, bent, blurred and inverted
Hardware  2 CPU cores, about 2 minutes
Measured  81.0 % of 62 classes on the validation split (some pairs, such as O 0 o, cannot be told apart)
Command   transformer-jax train --config experiments/digits/pretrain.py --workdir runs/digits/pretrain
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """4,000 steps of 64."""
    config = ml_collections.ConfigDict()
    config.name = "digits_pretrain"
    config.seed = 0
    config.model = dict(
        name="vit",
        variant=None,
        width=64,
        depth=4,
        heads=4,
        mlp_dim=256,
        patch=4,
        image_size=16,
        channels=1,
        pool="gap",
    )
    config.data = dict(source="glyphs", preprocess="value_range(-1, 1)", batch_size=64)
    config.optim = dict(name="adamw", b2=0.99, weight_decay=0.05)
    config.schedule = dict(name="cosine", base=4e-3, warmup="5%")
    config.train = dict(total=4000, label_smoothing=0.1, log_every=100)
    config.evals = dict(
        val=dict(source="glyphs", split="validation", preprocess="value_range(-1, 1)", batch_size=500, every="25%")
    )
    config.checkpoint = dict(every="25%")
    return config
