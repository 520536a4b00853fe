"""Fine-tuning of AugReg (2106.10270, table 4): rates and lengths, picked on ImageNet-v2 and on development splits.

ImageNet-1k's own development split says too much of weights from ImageNet-21k, which holds those very images: there the
rate is picked on ImageNet-v2. The other four data sets have their development splits.

Hardware  one accelerator; 26 tuning runs, and three final ones a data set; UNVERIFIED
Expected  ImageNet top-1 at 384 x 384 of the recommended files, and in brackets picked on v2; ours UNVERIFIED
            L/16 85.59 (87.08)  B/16 85.49 (86.15)  S/16 83.73  B/32 83.59  S/32 79.58  Ti/16 78.22  R50+L/32 85.99
            R26+S/32 83.85  R+Ti/16 75.40
Command   transformer-jax protocol --config experiments/transfer/augreg_protocol.py:weights=B_16.npz,model=B/16
              --workdir runs/augreg_transfer
"""

import itertools
import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs

HERE = pathlib.Path(__file__).parent
PARTS = configs.module(HERE.parent / "parts.py")
RATES = (0.001, 0.003, 0.01)
# rates, steps
TABLE_4 = {
    "imagenet2012": ((0.01, 0.03), (20_000,)),
    "oxford_iiit_pet": (RATES, (500, 2_500)),
    "kitti": (RATES, (500, 2_500)),
    "cifar100": (RATES, (2_500, 10_000)),
    "resisc45": (RATES, (2_500, 10_000)),
}
VTAB = ((*RATES, 0.03), (500, 2_500))  # of every task


def get_config(
    weights: str = "runs/pretrain",
    model: str = "B/16",
    size: str = "384",
    pool: str = "",
    datasets: str = "table4",
    judges: str = "v2",
) -> ml_collections.ConfigDict:
    """`size` is 224 or 384; `datasets` are rows of `TABLE_4` and `vtab`, joined by +. `judges` of ImageNet-1k (see
    imagenet.py) have v2 among them in any case: it picks."""
    config = ml_collections.ConfigDict()
    config.name = f"AugReg {model} at {size}"
    config.weights = weights
    config.seeds = 3
    config.groups = configs.module(HERE / "protocol.py").groups(datasets)
    more = dict(size=size, pool=pool, judges=judges)
    config.targets = targets(datasets, model, weights, found=PARTS.expected(weights), **more)
    return config


def targets(
    datasets: str,
    model: str,
    weights: str,
    *,
    found: Any,
    size: str,
    pool: str = "",
    judges: str = "v2",
    validation: str = "yes",
) -> dict[str, dict]:
    """The targets of transfer/protocol.py with the grids of AugReg."""
    finetune, protocol = configs.module(HERE / "finetune.py"), configs.module(HERE / "protocol.py")
    names = PARTS.rows("datasets", datasets, [*TABLE_4, "vtab"], table4=TABLE_4)
    picked = "+".join(dict.fromkeys(["v2", *judges.split("+")])) if judges else "v2"
    more = dict(found=found, size=size, pool=pool, judges=picked, validation=validation)
    made = protocol.targets("+".join(names), model, weights, **more)
    for name, target in made.items():
        rates, lengths = VTAB if name.startswith("vtab_") else TABLE_4[name]
        target["finetune_grid"] = tuple(
            {"schedule.base": rate, "train.total": steps, "schedule.warmup": finetune.WARMUP[steps]}
            for steps, rate in itertools.product(lengths, rates)
        )
    if "imagenet2012" in made:
        made["imagenet2012"]["select"] = "v2/top1"
    return made
