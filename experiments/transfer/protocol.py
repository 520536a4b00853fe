"""The transfer protocol of the ViT paper from published weights: five data sets, tuned, three seeds (2010.11929).

For each data set every rate of its grid is tried on a development split, the best one is trained on the whole training
split with three seeds and judged on the test split. Beside it, few-shot accuracies of the weights as they are.

Hardware  one accelerator; 46 tuning and final runs, of which those on ImageNet-1k take the longest; UNVERIFIED
Expected  the tables in finetune.py; ours UNVERIFIED
Command   transformer-jax protocol --config experiments/transfer/protocol.py:weights=B_16.npz,model=B/16
              --workdir runs/b16_transfer
          the headline: protocol.py:weights=L_16.npz,model=L/16,size=headline,datasets=imagenet2012
"""

import pathlib

import ml_collections

from transformer_jax import config as configs

HERE = pathlib.Path(__file__).parent
DATASETS = "imagenet2012+cifar100+cifar10+oxford_iiit_pet+oxford_flowers102"


def get_config(
    weights: str = "runs/pretrain",
    model: str = "B/16",
    size: str = "384",
    pool: str = "tok",
    datasets: str = DATASETS,
    judges: str = "real",
    validation: str = "yes",
    fewshot: str = "caltech101+cars196+cifar100+dtd+oxford_iiit_pet+uc_merced",
) -> ml_collections.ConfigDict:
    """Rows joined by +: `datasets` of finetune.py, `judges` of imagenet.py, `fewshot` of fewshot.py; or none."""
    config = ml_collections.ConfigDict()
    config.name = f"{model} to {datasets.replace('+', ', ')}"
    config.weights = weights
    config.seeds = 3
    config.evals = configs.module(HERE / "fewshot.py").evals(fewshot) if fewshot else {}
    config.targets = targets(datasets, model, weights, size=size, pool=pool, judges=judges, validation=validation)
    return config


def targets(
    datasets: str, model: str, weights: str, *, size: str, pool: str, judges: str, validation: str
) -> dict[str, dict]:
    """A target for each data set; `judges` are for ImageNet-1k."""
    finetune = configs.module(HERE / "finetune.py")
    found = {}
    for name in datasets.split("+"):
        also = judges if name == "imagenet2012" else ""
        recipe = finetune.get_config(name, model, weights, size=size, pool=pool, validation=validation, judges=also)
        row = finetune.DATASETS[name]
        found[name] = dict(
            finetune=recipe,
            finetune_grid=row["rates"],
            train=row["train"],
            dev=row["dev"],
            final=finetune.final(name, validation),
            test=row["test"],
        )
    return found
