"""How often the right class is among the first k, as counts that add up over batches."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def top_k_correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], *, k: int = 1
) -> Bool[Array, " batch"]:
    """Whether fewer than `k` classes score above the label, or level with it at a lower index.

    So ties go to the lower index, as in `argmax`, and a constant or NaN output is not counted as right.
    """
    scores = logits.astype(jnp.float32)
    own = jnp.take_along_axis(scores, labels[:, None], axis=-1)
    indices = jnp.arange(scores.shape[-1])[None, :]
    ahead = (scores > own) | ((scores == own) & (indices < labels[:, None]))
    return (ahead.sum(axis=-1) < k) & ~jnp.isnan(scores).any(axis=-1)


def counts(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    losses: Float[Array, " batch"],
    mask: Bool[Array, " batch"],
) -> dict[str, Float[Array, ""] | Int[Array, ""]]:
    """Sums over the examples that the mask keeps: `count`, `loss`, `top1`, and `top5` of more than five classes."""
    found = {
        "count": mask.sum(dtype=jnp.int32),
        "loss": jnp.where(mask, losses, 0.0).sum(),
        "top1": (top_k_correct(logits, labels, k=1) & mask).sum(dtype=jnp.int32),
    }
    if logits.shape[-1] > 5:
        found["top5"] = (top_k_correct(logits, labels, k=5) & mask).sum(dtype=jnp.int32)
    return found
