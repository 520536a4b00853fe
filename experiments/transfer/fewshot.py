"""Judge frozen features from a few examples a class: linear least squares, as the ViT paper does (2010.11929, 4.1).

Model     any pretrained ViT, hybrid or ResNet; the features are what the head sees
Data      1, 5, 10 and 25 examples a class of six public data sets, three draws of them; ImageNet-1k when asked for
Recipe    features standardised, ridge regression on targets of -1 and 1 in closed form, penalty 2^10 (big_vision's
          common_fewshot.py)
Hardware  one accelerator or a few CPU cores, minutes
Expected  UNVERIFIED for these data sets; ImageNet 5-shot of B/16 with learned positions 64.2, without positions 61.4
          (table 8)
Command   transformer-jax evaluate --config experiments/transfer/fewshot.py:model=B/16 --checkpoint B_16.npz
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

FINETUNE = pathlib.Path(__file__).with_name("finetune.py")
# name, data set, split to draw the shots from, split to judge on
DATASETS = {
    "caltech101": ("caltech101", "train", "test"),
    "cars196": ("cars196:2.1.0", "train", "test"),
    "cifar100": ("cifar100", "train", "test"),
    "dtd": ("dtd", "train", "test"),
    "oxford_iiit_pet": ("oxford_iiit_pet", "train", "test"),
    "uc_merced": ("uc_merced", "train[:1000]", "train[1000:]"),
    # The first 65,000 images hold at least 30 of every class. Not among the public ones: it is downloaded by hand.
    "imagenet2012": ("imagenet2012", "train[:65000]", "validation"),
}
PUBLIC = "caltech101+cars196+cifar100+dtd+oxford_iiit_pet+uc_merced"


def evals(names: str = PUBLIC, *, size: int = 224, every: str | None = None) -> dict[str, dict[str, Any]]:
    """An evaluator for each of these rows of `DATASETS`, joined by +."""
    resized = configs.module(FINETUNE).resized(size)
    sections = {}
    for name in names.split("+"):
        source, train, test = DATASETS[paths.one_of("datasets", name, DATASETS)]
        sections[f"{name}_fewshot"] = dict(
            kind="fewshot",
            source=f"tfds:{source}",
            train_split=train,
            test_split=test,
            preprocess=f"decode | resize({resized}) | central_crop({size}) | value_range(-1, 1)",
            batch_size=512,
            shots=(1, 5, 10, 25),
            seeds=3,
            l2=(2.0**10,),
            every=every,
        )
    return sections


def get_config(
    datasets: str = PUBLIC, model: str = "B/16", size: str = "224", pool: str = "tok", hidden: str = "no"
) -> ml_collections.ConfigDict:
    """`hidden=yes`: the weights have a tanh layer before the head (`pre_logits`), as those of pretrain.py."""
    config = configs.load(f"{FINETUNE}:model={model},size={size},pool={pool}")
    config.name = f"{model.replace('/', '_')}_fewshot"
    if paths.one_of("hidden", hidden, ("yes", "no")) == "yes":
        config.model.pre_logits = True
    config.evals = evals(datasets, size=int(size))
    config.init_from = None
    return config
