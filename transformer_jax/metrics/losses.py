"""Losses of one example each, in float32 whatever the logits are. Labels are class indices or distributions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"] | Float[Array, "batch classes"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """`-sum(target * log_softmax(logits))`, in nats.

    Smoothing moves that share of the mass to the uniform distribution over all classes, the right one included
    (Szegedy et al., 1512.00567, section 7), whether the labels are indices or mixed.
    """
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.sum(_targets(logits, labels, label_smoothing) * log_probability, axis=-1)


def sigmoid_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"] | Float[Array, "batch classes"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """The sum over classes of binary cross-entropies, in nats: how the ViT was pretrained on ImageNet-21k and JFT."""
    logits = logits.astype(jnp.float32)
    target = _targets(logits, labels, label_smoothing)
    each = -target * jax.nn.log_sigmoid(logits) - (1.0 - target) * jax.nn.log_sigmoid(-logits)
    return jnp.sum(each, axis=-1)


def _targets(logits: jax.Array, labels: jax.Array, label_smoothing: float) -> jax.Array:
    classes = logits.shape[-1]
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    target = labels.astype(jnp.float32)
    return target if label_smoothing == 0.0 else (1.0 - label_smoothing) * target + label_smoothing / classes


LOSSES = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}
