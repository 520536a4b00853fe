"""VTAB-1k as one command: nineteen fine-tunings of published weights, the mean of each group and of all.

Hardware  one accelerator, about a day for L/16; UNVERIFIED
Expected  mean of 19 (2010.11929, table 2): H/14 from JFT-300M 77.63, L/16 from JFT-300M 76.28, L/16 from ImageNet-21k
          72.72; task by task in vtab.py; ours UNVERIFIED
Command   transformer-jax protocol --config experiments/transfer/vtab_protocol.py:weights=L_16.npz,model=L/16
              --workdir runs/l16_vtab
"""

import pathlib

import ml_collections

from transformer_jax import config as configs

HERE = pathlib.Path(__file__).parent


def get_config(
    weights: str = "runs/pretrain", model: str = "B/16", size: str = "384", pool: str = ""
) -> ml_collections.ConfigDict:
    """One run a task at one rate: nothing is tuned, as in the ViT paper."""
    vtab, found = configs.module(HERE / "vtab.py"), configs.module(HERE.parent / "parts.py").expected(weights)
    config = ml_collections.ConfigDict()
    config.name = f"{model} on VTAB-1k"
    config.weights = weights
    config.seeds = 1
    config.groups = vtab.groups()
    config.targets = vtab.targets(model, weights, found=found, size=size, pool=pool)
    return config
