"""The transfer protocol of the ViT paper from published weights: five data sets, tuned, three seeds (2010.11929).

For each data set every rate of its grid is tried on a development split, the best one is trained on the whole training
split with three seeds and judged on the test split. Beside it, few-shot accuracies of the weights as they are. With
`datasets=table4+vtab` the nineteen tasks of VTAB-1k (vtab.py) join: one rate, three seeds.

Hardware  one accelerator; 35 tuning and final runs, of which those on ImageNet-1k take the longest; UNVERIFIED
Expected  the tables in finetune.py; ours UNVERIFIED
Command   transformer-jax protocol --config experiments/transfer/protocol.py:weights=B_16.npz,model=B/16
              --workdir runs/b16_transfer
          the headline of table 2, VTAB-1k with it:
          transformer-jax protocol --workdir runs/l16_headline
              --config experiments/transfer/protocol.py:weights=L_16.npz,model=L/16,size=headline,datasets=table4+vtab
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs

HERE = pathlib.Path(__file__).parent
PARTS = configs.module(HERE.parent / "parts.py")


def get_config(
    weights: str = "runs/pretrain",
    model: str = "B/16",
    size: str = "384",
    pool: str = "",
    datasets: str = "table4",
    judges: str = "real",
    validation: str = "yes",
    fewshot: str = "public",
    fewshot_size: str = "",
) -> ml_collections.ConfigDict:
    """Rows joined by +: `datasets` of finetune.py and `vtab`, `judges` of imagenet.py, `fewshot` of fewshot.py.

    `size=headline` is for ImageNet-1k, the others are at 384 then. `fewshot_size` is that of weights on this machine
    unless it is given, else 224.
    """
    found = PARTS.expected(weights)
    config = ml_collections.ConfigDict()
    config.name = f"{model} to {datasets.replace('+', ', ')}"
    config.weights = weights
    config.seeds = 3
    config.evals = evals(fewshot, fewshot_size, found=found)
    config.groups = groups(datasets)
    more = dict(size=size, pool=pool, judges=judges, validation=validation)
    config.targets = targets(datasets, model, weights, found=found, **more)
    return config


def evals(names: str, size: str = "", *, found: Any = None) -> dict[str, dict]:
    """The few-shot evaluators of the weights themselves."""
    pixel_size = PARTS.number("fewshot_size", size) if size else PARTS.own_size(found, 224)
    fewshot = configs.module(HERE / "fewshot.py")
    return fewshot.evals(names, size=pixel_size, pixels=PARTS.pixels(found)) if names else {}


def groups(datasets: str) -> dict[str, tuple[str, ...]]:
    """The means that are reported: those of VTAB's groups and of its nineteen tasks, where it is among the targets."""
    if "vtab" not in datasets.split("+"):
        return {}
    parts = configs.module(HERE / "vtab.py").groups("vtab_")
    return {**parts, "vtab": sum(parts.values(), ())}


def targets(
    datasets: str,
    model: str,
    weights: str,
    *,
    found: Any,
    size: str,
    pool: str = "",
    judges: str = "",
    validation: str = "yes",
) -> dict[str, dict]:
    """A target for each data set; `judges` are for ImageNet-1k."""
    finetune, vtab = configs.module(HERE / "finetune.py"), configs.module(HERE / "vtab.py")
    usual = "384" if size == "headline" else size
    made = {}
    for name in PARTS.rows("datasets", datasets, [*finetune.DATASETS, "vtab"], table4=finetune.TABLE_4):
        if name == "vtab":
            made.update(vtab.targets(model, weights, found=found, size=usual, pool=pool, prefix="vtab_"))
            continue
        on_imagenet = dict(size=size, judges=judges) if name == "imagenet2012" else dict(size=usual)
        row, common = finetune.DATASETS[name], dict(found=found, pool=pool, validation=validation)
        made[name] = dict(
            finetune=finetune.recipe(name, model, weights, **common, **on_imagenet),
            finetune_grid=row["rates"],
            train=row["train"],
            dev=row["dev"],
            final=finetune.final(name, validation),
            test=row["test"],
        )
    return made
