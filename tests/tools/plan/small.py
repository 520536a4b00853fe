"""A tiny experiment, and the CPU's devices in the place of a topology's: the whole way of a plan in seconds."""

import jax
import ml_collections

from transformer_jax import experiment
from transformer_jax.tools.plan import chips
from transformer_jax.tools.plan import topology as topologies


def settings(**changes):
    """Resolved settings of a ViT of two layers; no source is ever opened."""
    return experiment.resolve(raw(**changes))


def raw(*, source="digits", preprocess="value_range(-1, 1)", model=None, data=None, train=None, parallel=None):
    """The same as an experiment file gives it."""
    size = dict(variant=None, width=64, depth=2, heads=1, mlp_dim=128, patch=4, image_size=16, channels=3)
    return ml_collections.ConfigDict(
        dict(
            name="small",
            model=dict(name="vit", **(size | (model or {}))),
            data=dict(source=source, preprocess=preprocess, batch_size=64, **(data or {})),
            optim=dict(name="adamw"),
            schedule=dict(name="constant", base=1e-3),
            train=dict(total=100) | (train or {}),
            parallel=parallel or {},
        )
    )


def topology():
    """Four chips of v3, which have eight devices; ours."""
    return topologies.Topology("v3:2x2", chips.CHIPS["v3"], (2, 2), 1, jax.devices())
