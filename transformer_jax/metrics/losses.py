"""Losses of one example each, in float32; averaging them is the caller's business.

Labels are class numbers, or targets with one weight a class (mixup, multi-label). A class number outside the classes
gives NaN rather than a plausible number. Where `mask` is False the loss is 0 and so is every gradient, whatever the
logits are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Labels = Int[Array, " batch"] | Float[Array, "batch classes"]


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Labels,
    *,
    label_smoothing: float | int = 0.0,
    mask: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """`-sum(target * log_softmax(logits))`; smoothing moves that share of the target to all classes alike."""
    logits = _keep(logits.astype(jnp.float32), mask)
    target = _keep(_target(labels, logits.shape[-1], label_smoothing), mask)
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return _keep(jnp.sum(target * (normaliser - logits), axis=-1), mask)


def sigmoid_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Labels,
    *,
    label_smoothing: float | int = 0.0,
    mask: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """The binary cross-entropies of all classes, summed (not averaged, as in big_vision).

    Smoothing changes the target as in `softmax_cross_entropy`.
    """
    logits = _keep(logits.astype(jnp.float32), mask)
    target = _keep(_target(labels, logits.shape[-1], label_smoothing), mask)
    return _keep(jnp.sum(jax.nn.softplus(logits) - target * logits, axis=-1), mask)


LOSSES: dict[str, Callable[..., jax.Array]] = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}


def mean(values: Float[Array, " batch"], mask: Bool[Array, " batch"] | None = None) -> Float[Array, ""]:
    """The mean of the values the mask keeps; 0 when it keeps none."""
    if mask is None:
        return jnp.mean(values)
    return jnp.sum(_keep(values, mask)) / jnp.maximum(jnp.sum(mask), 1)


def _target(labels: Labels, classes: int, smoothing: float | int) -> Float[Array, "batch classes"]:
    if jnp.issubdtype(labels.dtype, jnp.integer):
        target = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
        known = (labels >= 0) & (labels < classes)
        target = jnp.where(known[:, None], target, jnp.nan)
    else:
        target = labels.astype(jnp.float32)
    return target if not smoothing else (1.0 - smoothing) * target + smoothing / classes


def _keep(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return values
    return jnp.where(mask.reshape(-1, *(1,) * (values.ndim - 1)), values, 0.0)
