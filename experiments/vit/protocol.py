"""A paper whole: pretrain by a recipe of this folder, then fine-tune on the data sets of its table 4, and on VTAB-1k.

recipe=pretrain   the ViT paper (2010.11929): a row of table 3, then all of table 4; size=headline for table 2
recipe=augreg     AugReg (2106.10270): one of its combinations, then the grids of its table 4, picked on ImageNet-v2
recipe=plain      the plain ViT (2205.01580) and
recipe=giant      ViT-g (2106.04560), each fine-tuned as in the ViT paper

Hardware  the TPUs of the recipe, and one accelerator for the transfer
Expected  the tables in the recipe, in transfer/finetune.py and transfer/augreg_protocol.py; ours UNVERIFIED
Command   transformer-jax protocol --config experiments/vit/protocol.py:model=B/16,data=imagenet21k
              --workdir runs/b16_21k
          transformer-jax protocol --config experiments/vit/protocol.py:recipe=augreg,model=S/16,augment=medium1
              --workdir runs/s16_augreg
          transformer-jax protocol --workdir runs/l16_table_2
              --config experiments/vit/protocol.py:model=L/16,size=headline,datasets=table4+vtab
"""

import pathlib

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

HERE = pathlib.Path(__file__).parent
TRANSFER = HERE.parent / "transfer"
# Which file has the targets of a recipe.
RECIPES = {
    "pretrain": "protocol.py",
    "augreg": "augreg_protocol.py",
    "plain": "protocol.py",
    "giant": "protocol.py",
}


def get_config(
    recipe: str = "pretrain",
    size: str = "384",
    datasets: str = "table4",
    judges: str = "real",
    validation: str = "yes",
    fewshot: str = "",
    **arguments: str,
) -> ml_collections.ConfigDict:
    """`arguments` are the recipe's own: model, data, epochs, augment, ... `datasets` are of its table 4, and `vtab`;
    `judges` are of transfer/imagenet.py; `fewshot` judges the pretrained weights, `public` or rows of
    transfer/fewshot.py."""
    places = TRANSFER / RECIPES[paths.one_of("recipe", recipe, RECIPES)]
    words = ",".join(f"{key}={value}" for key, value in arguments.items())
    pretrain = configs.load(f"{HERE / recipe}.py:{words}")
    common = configs.module(TRANSFER / "protocol.py")

    config = ml_collections.ConfigDict()
    config.name = f"{pretrain.name} to {datasets.replace('+', ', ')}"
    config.seeds = 3
    config.pretrain = pretrain
    config.evals = common.evals(fewshot)
    config.groups = common.groups(datasets)
    more = dict(size=size, pool=pretrain.model.get("pool", ""), judges=judges, validation=validation)
    # What the weights want is what the recipe has, pixels from -1 to 1; nothing is read from a run that may be there.
    config.targets = configs.module(places).targets(
        datasets, pretrain.model.variant, "runs/pretrain", found=None, **more
    )
    if "position" in pretrain.model:
        for target in config.targets.values():
            target.finetune.model.position = pretrain.model.position
    return config
