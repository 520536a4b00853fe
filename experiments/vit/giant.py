"""Scaling vision transformers (2106.04560): g/14 for a million steps, prolonged at will.

Model     g/14 at 224 x 224, attention pooling, 1.0 billion parameters
Data      JFT-3B, 29,593 classes, through your own `source=`, since it is not public
Recipe    Adafactor with momentum in bfloat16, batch 16384, rate 8e-4 falling with the inverse square root of the step
          and to 0 in the last 50k, weight decay 0.03 and 3.0 for the head, clipping at 1, sigmoid loss
          Positions start with a deviation of 0.02 (the ViT's own code), where big_vision takes 1/sqrt(width)
Hardware  TPUv3, 32 images a core, so 512 cores; days not published
Expected  UNVERIFIED: the paper gives 90.45 % on ImageNet for G/14; fine-tune with transfer/finetune.py:pool=map
Command   transformer-jax train --config experiments/vit/giant.py:source=tfds:MINE --workdir runs/giant
"""

import pathlib

import ml_collections

from transformer_jax import config as configs

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")


def get_config(
    source: str = "", train: str = "train", val: str = "val", model: str = "g/14"
) -> ml_collections.ConfigDict:
    """`model` is any variant of the ViT; those of the paper's study share the recipe."""
    sizes = {} if source else dict(examples=3_000_000_000, classes=29_593)
    source = source or "private:JFT-3B"
    training, judging = PARTS.preprocess("inception", 224)
    config = ml_collections.ConfigDict()
    config.name = f"{model.replace('/', '_')}_1M"
    config.model = dict(name="vit", variant=model, image_size=224, pool="map", head_bias=-10.0, remat="full")
    config.data = dict(
        source=source,
        split=train,
        preprocess=training,
        batch_size=16_384,
        **sizes,
    )
    # A weak decay lets the body go far in few shots, a strong one keeps the head small (section 3.1).
    config.optim = dict(
        name="adafactor",
        weight_decay=0.03,
        decay=(("(?!head/)(.*/)?kernel", 1.0), ("head/kernel", 100.0)),
        clip_norm=1.0,
    )
    # Neither warm-up, timescale nor cooldown depend on the length: a run is prolonged from before its cooldown.
    config.schedule = dict(name="rsqrt", base=8e-4, warmup=10_000, timescale=10_000, cooldown=50_000)
    config.train = dict(total=1_000_000, loss="sigmoid")
    config.evals = dict(
        val=dict(
            source=source,
            split=val,
            preprocess=judging,
            batch_size=1024,
            every=10_000,
        )
    )
    config.parallel = dict(mesh=dict(data=1, fsdp=-1), rules="fsdp")
    config.checkpoint = dict(every=1_000)
    return config
