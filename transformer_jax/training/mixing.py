"""Batches mixed on the device, so that pixels travel as uint8 and the result is the same on every mesh."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mixup(
    image: Float[Array, "batch height width channels"],
    target: Float[Array, "batch classes"],
    key: jax.Array,
    *,
    alpha: float,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Each example mixed with its neighbour in the batch, all with one weight from Beta(alpha, alpha).

    Zhang et al., 1710.09412. The weight is at least one half, so an example stays mostly itself.
    """
    weight = jax.random.beta(key, alpha, alpha)
    weight = jnp.maximum(weight, 1.0 - weight)

    def mix(x: jax.Array) -> jax.Array:
        return weight * x + (1.0 - weight) * jnp.roll(x, 1, axis=0)

    return mix(image), mix(target)
