"""The training step: loss, gradient, update, metrics.

A pure function. Mesh, donation and `jit` wrap it from outside.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from transformer_jax import types
from transformer_jax.optim import averaging
from transformer_jax.training import state as states

LossFn = Callable[[Any, types.Batch, jax.Array], tuple[jax.Array, types.Metrics]]
"""`loss_fn(params, batch, key) -> (mean loss, scalars to report)`."""
Step = Callable[[states.TrainState, types.Batch, jax.Array], tuple[states.TrainState, types.Metrics]]
Gradients = Callable[[Any, types.Batch, jax.Array], Any]
"""`gradients(params, batch, key) -> ((mean loss, scalars), gradients)`."""

STOPPED = "stop"
SKIPPED = "skipped"
FLAGS = {"stop": STOPPED, "skip": SKIPPED}
"""What a step reports (1.0) when it met a number that is not finite, by the policy it was made with."""


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    accumulate: int = 1,
    average_decay: float | None = None,
    nonfinite: str = "stop",
    over_devices: Callable[[Gradients], Gradients] = lambda gradients: gradients,
) -> Step:
    """`step(state, batch, learning_rate) -> (state, metrics)`.

    A loss, gradient or rate that is not finite leaves parameters, optimizer and average as they were; should the update
    of some number overflow nevertheless, that number stays as it was. All of it is decided on the device, in the pass
    that writes them, and the metric `FLAGS[nonfinite]` says so. With `accumulate` > 1 the batch is taken in that many
    parts, one after the other, with the same result where `loss_fn` draws nothing from its key: each part has its own.
    `over_devices` makes gradients of one device's examples those of all, where the compiler does not.
    """
    if nonfinite not in FLAGS:
        raise types.InputError(f"nonfinite must be one of {sorted(FLAGS)}: it is {nonfinite!r}.")
    gradients = over_devices(_accumulated(jax.value_and_grad(loss_fn, has_aux=True), accumulate))

    def train_step(state: states.TrainState, batch: types.Batch, learning_rate: Float[Array, ""]):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (loss, metrics), grads = gradients(state.params, batch, key)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params, learning_rate=learning_rate)

        norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        good = jnp.isfinite(loss) & jnp.isfinite(norms["grad_norm"]) & jnp.isfinite(learning_rate)

        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average_decay is not None:
            average = averaging.polyak(average, params, average_decay)
        after = (params, optimizer_state, average)
        before = (state.params, state.optimizer, state.average)
        # not the norm of the update: it is known only after a pass over all of them, and this one would be another
        params, optimizer_state, average = jax.tree.map(
            lambda new, old: jnp.where(good & jnp.isfinite(new), new, old), after, before
        )
        good &= jnp.isfinite(norms["update_norm"])

        state = states.TrainState(state.step + 1, params, optimizer_state, average, state.key)
        return state, {**metrics, "loss": loss, **norms, FLAGS[nonfinite]: 1.0 - good}

    return train_step


def _accumulated(gradients: Gradients, count: int) -> Gradients:
    """`gradients(params, batch, key)`, averaged over `count` equal parts of the batch that are taken in turn."""
    if count == 1:
        return gradients

    def part(x: jax.Array) -> jax.Array:
        if x.shape[0] % count:
            raise types.InputError(
                f"accumulate must divide the batch: {x.shape[0]} examples do not make {count} equal parts."
                " Change data.batch_size or train.accumulate."
            )
        # Every count-th example, not runs of them: a batch sharded over devices stays where it is.
        return jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1)

    def averaged(params: Any, batch: types.Batch, key: jax.Array) -> Any:
        parts = jax.tree.map(part, batch)

        def add(total, indexed):
            index, micro_batch = indexed
            result = gradients(params, micro_batch, jax.random.fold_in(key, index))
            return jax.tree.map(lambda a, b: a + b / count, total, result), None

        one = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradients, params, one, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.result_type(leaf.dtype, jnp.float32)), shapes)
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
        return jax.tree.map(
            lambda x, s: x.astype(s.dtype) if jnp.issubdtype(s.dtype, jnp.floating) else x, total, shapes
        )

    return averaged
