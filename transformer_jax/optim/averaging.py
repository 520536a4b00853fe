"""Polyak averaging: a second set of parameters that follows the first slowly, and is the one evaluated."""

from typing import Any

import jax


def polyak(average: Any, params: Any, decay: float | jax.Array) -> Any:
    """`decay * average + (1 - decay) * params`, leaf by leaf (ViT, 2010.11929, table 2: decay 0.9999)."""
    return jax.tree.map(lambda slow, fast: slow + (1.0 - decay) * (fast - slow), average, params)
