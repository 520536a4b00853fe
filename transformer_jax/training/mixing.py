"""Batches mixed on the device: pixels travel as uint8, the result is the same on every mesh and number of processes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mix(
    image: Float[Array, "batch height width channels"],
    target: Float[Array, "batch classes"],
    key: jax.Array,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    per_example: bool = False,
    switch: float = 0.5,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Each example mixed with its neighbour in the batch by mixup, CutMix or either; targets by the same shares.

    `mixup` (Zhang et al., 1710.09412): one weight for all pixels, from Beta(mixup, mixup), at least one half so that an
    example stays mostly itself, as in big_vision. `cutmix` (Yun et al., 1905.04899): a box of the neighbour pasted in,
    its area from Beta(cutmix, cutmix), its centre anywhere; what the border cuts off does not count. 0 turns one off;
    with both on, `switch` is the probability of CutMix. Weight, box and choice are one for the whole batch, or
    `per_example`.
    """
    if not mixup and not cutmix:
        return image, target
    batch, height, width = image.shape[:3]
    draws = batch if per_example else 1
    weight_key, box_key, switch_key = jax.random.split(key, 3)
    boxed = jax.random.bernoulli(switch_key, switch if mixup and cutmix else float(cutmix > 0), (draws,))
    alpha = jnp.where(boxed, cutmix, mixup)
    weight = jax.random.beta(weight_key, alpha, alpha)
    pasted = _boxes(box_key, weight, height, width)
    even = jnp.maximum(weight, 1.0 - weight)
    kept = jnp.where(boxed[:, None, None], ~pasted, even[:, None, None])  # the share of an example in each pixel
    share = jnp.where(boxed, 1.0 - pasted.sum((1, 2)) / (height * width), even)  # and in all of them
    return _with_neighbour(image, kept[..., None]), _with_neighbour(target, share[:, None])


def _boxes(key: jax.Array, weight: Float[Array, " draws"], height: int, width: int) -> Bool[Array, "draws h w"]:
    """Where the neighbour is pasted in: of the area, one less the weight before the border cuts."""
    side = jnp.sqrt(1.0 - weight)

    def between(key: jax.Array, size: int) -> jax.Array:
        length = jnp.floor(side * size).astype(jnp.int32)
        start = jax.random.randint(key, side.shape, 0, size) - length // 2
        from_start = jnp.arange(size)[None, :] - start[:, None]
        return (from_start >= 0) & (from_start < length[:, None])

    row_key, column_key = jax.random.split(key)
    return between(row_key, height)[:, :, None] & between(column_key, width)[:, None, :]


def _with_neighbour(x: jax.Array, share: jax.Array) -> jax.Array:
    return share * x + (1.0 - share) * jnp.roll(x, 1, axis=0)
