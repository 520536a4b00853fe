"""Writes tests/golden/checkpoint_v1, a checkpoint of format 1. Kept for the record: the files are never made again.

PYTHONPATH=tests python tests/golden/make_checkpoint_v1.py
"""

import dataclasses
import pathlib

import jax.numpy as jnp
from training import small_run

from transformer_jax.training import checkpoint, state

if __name__ == "__main__":
    made = small_run.fresh()
    params = {**made.params, "blocks": {"mlp": {"kernel": jnp.arange(72, dtype=jnp.float32).reshape(2, 6, 6)}}}
    made = dataclasses.replace(made, params=params, step=jnp.int32(3))
    checkpointer = checkpoint.Checkpointer(
        pathlib.Path(__file__).parent / "checkpoint_v1",
        stacks=small_run.STACKS,
        meta={"config": {"seed": 0}, "classes": {"model": "vit"}},
    )
    checkpointer.save(made, state.Clock(3, 24, True), {"val/top1": 0.5})
    checkpointer.close()
