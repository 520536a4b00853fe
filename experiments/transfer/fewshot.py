"""Judge frozen features from a few examples a class: linear least squares, as the ViT paper does (2010.11929, 4.1).

Model     any pretrained ViT, hybrid or ResNet; the features are what the head sees
Data      1, 5, 10 and 25 examples a class of six public data sets, three draws of them; ImageNet-1k when asked for
          kind=knn and kind=probe judge by nearest neighbours and by softmax regression instead
Recipe    features standardised, ridge regression on targets of -1 and 1 in closed form, penalty 2^10 (big_vision's
          common_fewshot.py)
Hardware  one accelerator or a few CPU cores, minutes
Expected  UNVERIFIED for these data sets; ImageNet 5-shot of B/16 with learned positions 64.2, without positions 61.4
          (table 8)
Command   transformer-jax evaluate --config experiments/transfer/fewshot.py:weights=B_16.npz --checkpoint B_16.npz
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")
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
OPTIONS: dict[str, dict[str, Any]] = {
    "fewshot": dict(shots=(1, 5, 10, 25), seeds=3, l2=(2.0**10,)),
    "knn": {},
    "probe": {},
}


def evals(
    names: str = "public",
    *,
    kind: str = "fewshot",
    size: int = 224,
    pixels: str = PARTS.GOOGLE,
    every: str | None = None,
) -> dict[str, dict[str, Any]]:
    """An evaluator of this kind for each of these rows of `DATASETS`, joined by +; `public` are all but ImageNet-1k."""
    paths.one_of("kind", kind, OPTIONS)
    public = [name for name in DATASETS if name != "imagenet2012"]
    sections = {}
    for name in PARTS.rows("datasets", names, DATASETS, public=public):
        source, train, test = DATASETS[name]
        sections[f"{name}_{kind}"] = dict(
            kind=kind,
            source=f"tfds:{source}",
            train_split=train,
            test_split=test,
            preprocess=f"decode | resize({PARTS.resized(size)}) | central_crop({size}) | {pixels}",
            batch_size=512,
            **OPTIONS[kind],
            every=every,
        )
    return sections


def get_config(
    datasets: str = "public",
    weights: str = "",
    model: str = "",
    size: str = "",
    pool: str = "",
    hidden: str = "",
    kind: str = "fewshot",
) -> ml_collections.ConfigDict:
    """`weights`, the --checkpoint, say the rest where they are on this machine; else B/16 at 224 with a class token.

    `hidden=yes`: they have a tanh layer before the head (`pre_logits`), as those of pretrain.py. `kind` is fewshot, knn
    (nearest neighbours) or probe (softmax regression on all of the training split).
    """
    made, pixel_size, pixels = PARTS.judged(weights, variant=model, size=size, usual=224, pool=pool, hidden=hidden)
    config = configs.load(str(FINETUNE))
    config.name = f"{(made.get('variant') or made['name']).replace('/', '_')}_{kind}"
    config.model = made
    config.evals = evals(datasets, kind=kind, size=pixel_size, pixels=pixels)
    _, config.data.preprocess = PARTS.preprocess("small", pixel_size, pixels=pixels)
    config.init_from = None
    return config
