"""Pretrain a ViT, a hybrid or a BiT ResNet as the ViT paper does: every row of its table 3 (2010.11929, appendix B.1).

Model     B/16 B/32 L/16 L/32 H/14, hybrids R50+B/16 and the like, ResNets R50x1 and the like; at 224 x 224. The head is
          an MLP with one tanh layer (`pre_logits`), which fine-tuning throws away
Data      jft: JFT-300M, 303M images of 18k classes, through your own `source=`, since it is not public (a run without
          one can be planned: transformer-jax plan)
          imagenet21k: 14.2M images of 21,843 classes; `tfds:imagenet21k` (split `full`) has to be made by hand
          imagenet1k: 1.28M images of 1,000 classes
Recipe    Adam, batch 4096, 10k steps of warm-up, gradients clipped at norm 1, sigmoid loss; crops and flips, no more
Hardware  TPUv3; core-days (table 2): 2.5k for H/14 and 0.68k for L/16 on JFT-300M, 0.23k for L/16 on ImageNet-21k (30
          days of 8 cores)
Expected  ImageNet top-1 after fine-tuning at 384 x 384 (tables 5 and 6); ours UNVERIFIED
                          B/16   B/32   L/16   L/32   H/14
            imagenet1k    77.91  73.38  76.53  71.16
            imagenet21k   83.97  81.28  85.15  80.99
            jft           84.15  80.73  87.12  84.37  88.04    L/16 after 14 epochs; 86.30 after 7
            jft           R50+B/32 84.90, R50+B/16 85.58, R50+L/32 85.68, R50+L/16 86.60 (14 epochs: 87.12), R50x1 77.54
Command   transformer-jax train --config experiments/vit/pretrain.py:model=B/16,data=imagenet21k --workdir runs/b16
          transformer-jax train --config experiments/vit/pretrain.py:model=L/16,data=jft,epochs=14,source=tfds:MINE
              --workdir runs/l16

The warm-up is of 10k steps whatever the data: a small folder needs a shorter one, --config.schedule.warmup=5%.
"""

import pathlib
from typing import Any, NamedTuple

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")
FEWSHOT = pathlib.Path(__file__).parents[1] / "transfer" / "fewshot.py"


class Row(NamedTuple):
    """A row of table 3. Of several epochs the first are the default.

    The weight decay is the paper's: decoupled, and multiplied by the learning rate.
    """

    data: str
    models: str
    epochs: str
    base: float
    decay: str
    weight_decay: float
    dropout: float


TABLE = (
    Row("jft", "B/16 B/32", "7", 8e-4, "linear", 0.1, 0.0),
    Row("jft", "L/32", "7", 6e-4, "linear", 0.1, 0.0),
    Row("jft", "L/16", "7 14", 4e-4, "linear", 0.1, 0.0),
    Row("jft", "H/14", "14", 3e-4, "linear", 0.1, 0.0),
    Row("jft", "R50x1 R50x2", "7", 1e-3, "linear", 0.1, 0.0),
    Row("jft", "R101x1", "7", 8e-4, "linear", 0.1, 0.0),
    Row("jft", "R152x1 R152x2", "7", 6e-4, "linear", 0.1, 0.0),
    Row("jft", "R50+B/16 R50+B/32", "7", 8e-4, "linear", 0.1, 0.0),
    Row("jft", "R50+L/32", "7", 2e-4, "linear", 0.1, 0.0),
    Row("jft", "R50+L/16", "7 14", 4e-4, "linear", 0.1, 0.0),
    Row("imagenet21k", "B/16 B/32", "90", 1e-3, "linear", 0.03, 0.1),
    Row("imagenet21k", "L/16 L/32", "30 90", 1e-3, "linear", 0.03, 0.1),
    Row("imagenet1k", "B/16 B/32 L/16 L/32 H/14", "300", 3e-3, "cosine", 0.3, 0.1),
)
# Where the examples are; the head's bias at the start makes every class as improbable as it is (big_vision's configs).
DATA: dict[str, dict[str, Any]] = {
    "jft": dict(source="private:JFT-300M", train="train", val="validation", head_bias=-10.0),
    "imagenet21k": dict(source="tfds:imagenet21k", train="full[51200:]", val="full[25600:51200]", head_bias=-10.0),
    "imagenet1k": dict(source="tfds:imagenet2012", train="train[:99%]", val="validation", head_bias=-6.9),
}
# How many there are in `train`, and of how many classes. JFT's are the paper's 303M, and 18,291 of BiT (1912.11370).
SIZES = {
    "jft": dict(examples=303_000_000, classes=18_291),
    "imagenet21k": dict(examples=14_145_922, classes=21_843),
    "imagenet1k": dict(examples=1_268_355, classes=1000),
}
# Where the decay ends: the paper does not say. Its code (google-research/vision_transformer, utils.py) draws the line
# to this rate, big_vision to 0.
END = {"linear": 1e-5, "cosine": 0.0}


def get_config(
    model: str = "B/16",
    data: str = "imagenet21k",
    epochs: str = "",
    source: str = "",
    train: str = "",
    val: str = "",
    fewshot: str = "",
) -> ml_collections.ConfigDict:
    """`epochs` is one of the row's. `source`, `train` and `val` replace those of `DATA`; `fewshot` names data sets of
    transfer/fewshot.py to follow the features with, `cifar100+dtd`."""
    examples = DATA[paths.one_of("data", data, DATA)]
    rows: dict[str, Row] = {name: row for row in TABLE if row.data == data for name in row.models.split()}
    row = rows[paths.one_of("model", model, rows)]
    epochs = paths.one_of("epochs", epochs or row.epochs.split()[0], row.epochs.split())
    sizes = {} if source or train else SIZES[data]  # of images of your own we know nothing
    source = source or examples["source"]
    training, judging = PARTS.preprocess("inception", 224)
    config = ml_collections.ConfigDict()
    config.name = f"{model.replace('/', '_')}_{data}_{epochs}ep"
    if "x" in model:  # a BiT ResNet has no hidden layer before the head and no dropout
        config.model = dict(name="resnet", variant=model, image_size=224, head_bias=examples["head_bias"])
    else:
        config.model = dict(
            name="vit",
            variant=model,
            image_size=224,
            pool="tok",
            pre_logits=True,
            dropout=row.dropout,
            head_bias=examples["head_bias"],
        )
    # Images with several labels: end in `multihot(CLASSES)`, and judge them by an evaluator of kind multilabel.
    config.data = dict(
        source=source,
        split=train or examples["train"],
        preprocess=training,
        batch_size=4096,
        **sizes,
    )
    # Table 3's text names clipping for ImageNet-1k alone; the released code clips everywhere.
    config.optim = dict(name="adamw", b1=0.9, b2=0.999, weight_decay=row.weight_decay, clip_norm=1.0)
    config.schedule = dict(name=row.decay, base=row.base, warmup=10_000, end=END[row.decay])
    config.train = dict(total=f"{epochs} epochs", loss="sigmoid")
    config.evals = dict(
        val=dict(
            source=source,
            split=val or examples["val"],
            preprocess=judging,
            batch_size=1024,
            every="2%",
        )
    )
    if fewshot:
        config.evals.update(configs.module(FEWSHOT).evals(fewshot, every="10%"))
    config.checkpoint = dict(every="1%")
    return config
