"""The whole of the ViT paper: pretrain a row of table 3, then fine-tune it on the five data sets of table 4.

Hardware  the TPUv3 of pretrain.py, and one accelerator for the transfer
Expected  the tables in pretrain.py and transfer/finetune.py; ours UNVERIFIED
Command   transformer-jax protocol --config experiments/vit/protocol.py:model=B/16,data=imagenet21k
              --workdir runs/b16_21k
"""

import pathlib

import ml_collections

from transformer_jax import config as configs

HERE = pathlib.Path(__file__).parent
TRANSFER = HERE.parent / "transfer"


def get_config(
    model: str = "B/16",
    data: str = "imagenet21k",
    epochs: str = "",
    source: str = "",
    train: str = "",
    val: str = "",
    size: str = "384",
    judges: str = "real",
    validation: str = "yes",
    fewshot: str = "",
) -> ml_collections.ConfigDict:
    """As pretrain.py and transfer/protocol.py take them; `fewshot` judges the pretrained weights."""
    transfer = configs.module(TRANSFER / "protocol.py")
    config = ml_collections.ConfigDict()
    config.name = f"{model} from {data}"
    config.seeds = 3
    config.pretrain = configs.module(HERE / "pretrain.py").get_config(model, data, epochs, source, train, val)
    config.evals = configs.module(TRANSFER / "fewshot.py").evals(fewshot) if fewshot else {}
    config.targets = transfer.targets(
        transfer.DATASETS, model, "runs/pretrain", size=size, pool="tok", judges=judges, validation=validation
    )
    return config
