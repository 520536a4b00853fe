"""A small run, whole in itself: a classifier with dropout on batches that are arithmetic."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from transformer_jax.training import checkpoint, compilation, evaluator, journal, loop, preemption, reporting, start
from transformer_jax.training import state as states
from transformer_jax.training import step as steps

BATCH, FEATURES, CLASSES, LAYERS = 8, 6, 3, 2
STACKS = {"blocks": LAYERS}


def init_params(key: jax.Array) -> dict[str, Any]:
    one, two = jax.random.split(key)
    return {
        "blocks": {"mlp": {"kernel": 0.3 * jax.random.normal(one, (LAYERS, FEATURES, FEATURES))}},
        "head": {"kernel": 0.3 * jax.random.normal(two, (FEATURES, CLASSES)), "bias": jnp.zeros((CLASSES,))},
    }


def loss_fn(params: Any, batch: Any, key: jax.Array, *, dropout: float = 0.1) -> tuple[jax.Array, dict[str, Any]]:
    x = batch["image"]
    for kernel in params["blocks"]["mlp"]["kernel"]:
        x = x + jnp.tanh(x @ kernel)
    if dropout:
        x = x * jax.random.bernoulli(key, 1 - dropout, x.shape)
    logits = x @ params["head"]["kernel"] + params["head"]["bias"][None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses.mean(), {"accuracy": (logits.argmax(-1) == batch["label"]).mean()}


def optimizer() -> optax.GradientTransformationExtraArgs:
    """AdamW whose learning rate is an argument of the update."""
    inner = optax.with_extra_args_support(optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.01)))

    def update(grads, state, params=None, *, learning_rate, **extra):
        updates, state = inner.update(grads, state, params, **extra)
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def batches(position: int, *, batch_size: int = BATCH, seen: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """Example p is a pure function of p."""
    while True:
        ids = np.arange(position, position + batch_size)
        rows = [np.random.default_rng(int(i)).normal(size=FEATURES) for i in ids]
        image = np.stack(rows).astype(np.float32)
        if seen is not None:
            seen.extend(ids.tolist())
        yield {"image": image, "label": (image[:, 0] > 0).astype(np.int32) + (image[:, 1] > 1), "_id": ids}
        position += batch_size


def fresh(average: bool = True) -> states.TrainState:
    return jax.tree.map(jnp.copy, _fresh(average))


@functools.cache
def _fresh(average: bool) -> states.TrainState:
    make = jax.jit(lambda key: states.create(init_params(key), optimizer(), key=key, average=average))
    return make(jax.random.key(0))


def abstract(state: states.TrainState) -> states.TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@functools.cache
def train_step(loss: Any = loss_fn, **options: Any) -> steps.Step:
    """Compiled once for all runs, as in a stage of the protocol."""
    made = steps.make_train_step(loss, optimizer(), average_decay=0.9, **options)
    return jax.jit(compilation.traced_once(made, "the training step"), donate_argnums=0)


def numbers(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured."""
    lines = reporting.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "wall" and not k.startswith("time/")} for line in lines]


def timeless(meta: dict[str, Any]) -> dict[str, Any]:
    """The meta data of a checkpoint without what a clock measured, and without the seal over it."""
    return {name: value for name, value in meta.items() if name not in ("goodput", "seal")}


class Mean:
    """An evaluator: the mean of the head, slowly if asked to."""

    def __init__(self, name: str = "val") -> None:
        self.name = name
        self.calls: list[float] = []

    def __call__(self, params: Any, *, stop: Any) -> dict[str, float]:
        self.calls.append(float(np.mean(jax.device_get(params["head"]["kernel"]))))
        return {"mean": self.calls[-1]}


def run(
    workdir: pathlib.Path,
    total_steps: int,
    *,
    step: Any = None,
    nonfinite: str = "stop",
    feed: Any = batches,
    stop: preemption.Stop | None = None,
    save_every: int | None = 4,
    every: int = 1,
    eval_every: int | None = 3,
    evaluate: Any = None,
    resume: str = "auto",
    extra_writers: Any = (),
    **checkpointing: Any,
) -> states.TrainState:
    """What experiment.py does, in small: start, then fit."""
    checkpointer = checkpoint.Checkpointer(
        workdir / "checkpoints", stacks=STACKS, meta={"config": {"seed": 0}}, **checkpointing
    )
    begun = start.begin(checkpointer, abstract(fresh()), fresh=fresh, resume=resume, say=lambda line: None)
    keep = begun.clock.step if begun.origin == "own" else -1
    writer = reporting.Writers([reporting.JsonLines(workdir / "metrics.jsonl", keep_until=keep), *extra_writers])
    try:
        return loop.fit(
            begun.state,
            step or train_step(nonfinite=nonfinite),
            feed,
            clock=begun.clock,
            total_steps=total_steps,
            batch_size=BATCH,
            schedule=lambda count: 0.1 * (1 - count / 100),
            log=journal.Journal(writer, total_steps=total_steps, batch_size=BATCH, every=every, directory=workdir),
            stop=stop or preemption.Stop(),
            evaluations=[evaluator.Scheduled(evaluate or Mean(), every=eval_every, average=True)],
            checkpointer=checkpointer,
            save_every=save_every,
        )
    finally:
        checkpointer.close()
        writer.close()
