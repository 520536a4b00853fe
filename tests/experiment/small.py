"""An experiment of seconds, and an experiment file."""

from pathlib import Path

import ml_collections

from transformer_jax import experiment

ROOT = Path(__file__).parents[2]


def get_config():
    """A run of seconds with everything in it: dropout, augmentation, mixup, an average, an evaluator."""
    return ml_collections.ConfigDict(
        dict(
            name="tiny",
            model=dict(
                name="vit",
                variant=None,
                width=16,
                depth=2,
                heads=2,
                mlp_dim=32,
                patch=4,
                image_size=8,
                channels=1,
                dropout=0.1,
                stochastic_depth=0.1,
            ),
            data=dict(source="digits", preprocess="shift(1) | value_range(-1, 1)", batch_size=16),
            optim=dict(name="adamw", weight_decay=0.1),
            schedule=dict(name="cosine", base=1e-3, warmup=2),
            train=dict(total=6, average=0.9, mixup=0.2, cutmix=0.5, label_smoothing=0.1, log_every=1),
            evals=dict(val=dict(source="digits", split="validation", preprocess="value_range(-1, 1)", batch_size=64)),
        )
    )


def tiny(**changes):
    """The experiment, resolved."""
    return experiment.resolve(get_config(), {key.replace("__", "."): value for key, value in changes.items()})
