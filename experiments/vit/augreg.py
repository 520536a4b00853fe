"""How to train your ViT: augmentation and regularisation, the 28 combinations of AugReg (2106.10270, section 3.3).

Model     Ti/16 S/32 S/16 B/32 B/16 L/16 at 224 x 224. On ImageNet-1k a class token and an MLP head; on ImageNet-21k the
          mean of the patches and a linear head (big_vision's vit_i1k.py and vit_i21k.py)
Data      ImageNet-1k for 300 epochs, or ImageNet-21k (made by hand, see pretrain.py) for 30 or 300
Recipe    Adam, batch 4096, 10k steps of warm-up, cosine to 0 from 1e-3, gradients clipped at norm 1, sigmoid loss
          Learned positions start with a deviation of 0.02 (the ViT's own code), where big_vision takes 1/sqrt(width)
Hardware  TPUv3; B/16 on ImageNet-1k for 300 epochs: UNVERIFIED
Expected  ImageNet top-1 after fine-tuning at 384 x 384, the released best of each; ours UNVERIFIED
                               Ti/16  S/32   S/16   B/32   B/16   L/16
            imagenet21k, 300   78.22  79.58  83.73  83.59  85.49  85.59
            imagenet1k, 300                  80.70         81.63  77.21
Command   transformer-jax train --config experiments/vit/augreg.py:model=B/16,data=imagenet1k --workdir runs/augreg_b16
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")

# RandAugment's layers and magnitude, and mixup. Magnitude 0 still changes the image: most of its operations are then
# the identity, but equalize, invert and autocontrast have no magnitude.
AUGMENTATIONS = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}
REGULARISATIONS = {"none": (0.0, 0.0), "both": (0.1, 0.1)}  # dropout, stochastic depth
WEIGHT_DECAYS = ("0.1", "0.03")
DATA: dict[str, dict[str, Any]] = {
    "imagenet1k": dict(
        source="tfds:imagenet2012",
        train="train[:99%]",
        val="validation",
        sizes=dict(examples=1_268_355, classes=1000),
        head_bias=-6.9,
        model=dict(pool="tok", pre_logits=True),
        epochs=("300",),
        # big_vision's choice for every size: good between 30 and 300 epochs (figure 4)
        augment={
            "Ti/16": "light1",
            "S/32": "medium1",
            "S/16": "medium2",
            "B/32": "medium2",
            "B/16": "medium2",
            "L/16": "medium2",
        },
    ),
    "imagenet21k": dict(
        source="tfds:imagenet21k",
        train="full[51200:]",
        val="full[25600:51200]",
        sizes=dict(examples=14_145_922, classes=21_843),
        head_bias=-10.0,
        model=dict(pool="gap", pre_logits=False),
        epochs=("300", "30"),
        augment={
            "Ti/16": "none",
            "S/32": "none",
            "S/16": "light1",
            "B/32": "light2",
            "B/16": "light2",
            "L/16": "medium2",
        },
    ),
}


def get_config(
    model: str = "B/16",
    data: str = "imagenet1k",
    epochs: str = "",
    augment: str = "",
    regularise: str = "none",
    weight_decay: str = "0.1",
    source: str = "",
) -> ml_collections.ConfigDict:
    """A combination is a row of `AUGMENTATIONS`, one of `REGULARISATIONS` and one of `WEIGHT_DECAYS`."""
    how = DATA[paths.one_of("data", data, DATA)]
    variant = paths.one_of("model", model, how["augment"])
    augment = paths.one_of("augment", augment or how["augment"][variant], AUGMENTATIONS)
    layers, magnitude, mixup = AUGMENTATIONS[augment]
    dropout, depth = REGULARISATIONS[paths.one_of("regularise", regularise, REGULARISATIONS)]
    decay = float(paths.one_of("weight_decay", weight_decay, WEIGHT_DECAYS))
    epochs = paths.one_of("epochs", epochs or how["epochs"][0], how["epochs"])
    randaug = f"randaug({layers}, {magnitude})" if layers else ""
    training, judging = PARTS.preprocess("inception", 224, changes=randaug)

    config = ml_collections.ConfigDict()
    config.name = f"{variant.replace('/', '_')}_{data}_{epochs}ep_{augment}_wd{weight_decay}_do{dropout}_sd{depth}"
    config.model = dict(
        name="vit",
        variant=variant,
        image_size=224,
        **how["model"],
        dropout=dropout,
        stochastic_depth=depth,
        head_bias=how["head_bias"],
    )
    config.data = dict(
        source=source or how["source"],
        split=how["train"],
        preprocess=training,
        batch_size=4096,
        **({} if source else how["sizes"]),
    )
    # The paper's weight decay is multiplied by the learning rate (its footnote 4): big_vision writes 0.1 as 1e-4.
    config.optim = dict(name="adamw", b1=0.9, b2=0.999, moment_dtype="bfloat16", weight_decay=decay, clip_norm=1.0)
    config.schedule = dict(name="cosine", base=1e-3, warmup=10_000)
    config.train = dict(total=f"{epochs} epochs", loss="sigmoid", mixup=mixup)
    config.evals = dict(
        val=dict(
            source=source or how["source"],
            split=how["val"],
            preprocess=judging,
            batch_size=1024,
            every="2%",
        )
    )
    config.checkpoint = dict(every="1%")
    return config
