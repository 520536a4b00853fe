"""Is the right class among the first k, and the first class among the right ones?"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], *, k: int = 1
) -> Bool[Array, " batch"]:
    """Whether fewer than `k` classes come before the label's. Among equal logits the lower class comes first.

    A row with a NaN is never correct, nor is a label that is no class.
    """
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[-1])
    right = classes[None, :] == labels[:, None]
    own = jnp.max(jnp.where(right, logits, -jnp.inf), axis=-1, keepdims=True)
    before = (logits > own) | ((logits == own) & (classes[None, :] < labels[:, None]))
    known = right.any(-1) & ~jnp.isnan(logits).any(-1)
    return known & (before.sum(-1) < k)


def predicted(logits: Float[Array, "batch classes"]) -> Int[Array, " batch"]:
    """The class of the highest logit, among equals the lowest; -1 for a row with a NaN, so that it is never right."""
    logits = logits.astype(jnp.float32)
    return jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


def among(
    logits: Float[Array, "batch classes"], labels: Bool[Array, "batch classes"] | Float[Array, "batch classes"]
) -> Bool[Array, " batch"]:
    """Whether the predicted class is one of the example's labels, those with a weight above 0."""
    own = jnp.take_along_axis(labels, predicted(logits)[:, None], axis=-1)[:, 0]  # of -1: the last one, not counted
    return (own > 0) & (predicted(logits) >= 0)


def counts(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    *,
    ks: Sequence[int] = (1, 5),
    mask: Bool[Array, " batch"] | None = None,
) -> dict[str, Int[Array, ""]]:
    """`{"top1": correct examples, "top5": ..., "count": examples}`, of those the mask keeps."""
    kept = jnp.ones(labels.shape, bool) if mask is None else mask
    totals = {f"top{k}": jnp.sum(correct(logits, labels, k=k) & kept, dtype=jnp.int32) for k in ks}
    return {**totals, "count": jnp.sum(kept, dtype=jnp.int32)}
