"""Noise that training adds and evaluation leaves out: dropout of features and of whole residual branches.

Both follow `nnx.view(model, deterministic=...)` and draw from the stream `dropout`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Dropout = nnx.Dropout


class StochasticDepth(nnx.Module):
    """Drops the whole residual branch of an example with probability `rate`, else divides it by `1 - rate`.

    Huang et al., 1603.09382, scaled in training instead of at test time. The rate comes with the call because it
    differs from layer to layer of one stack; a plain 0.0 costs nothing.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        self.deterministic = False
        self.rngs = rngs["dropout"].fork()

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by `nnx.view`."""
        self.deterministic = self.deterministic if deterministic is None else deterministic

    def __call__(self, x: Float[Array, "batch ..."], rate: float | Float[Array, ""] = 0.0) -> Float[Array, "batch ..."]:
        if self.deterministic or (isinstance(rate, float) and rate == 0.0):
            return x
        keep = jax.random.bernoulli(self.rngs(), 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        scale = jnp.where(keep, 1.0 / (1.0 - rate), 0.0).astype(x.dtype)
        return x * scale
