"""Optimizers as one constructor each, all composed the same way:

    clip by global norm -> direction (directions.py) -> + weight decay * parameter -> * -(learning rate * multiplier)

The learning rate is an array the compiled step is given. **Weight decay is decoupled and multiplied by the learning
rate**, as in optax.adamw and the papers: each step shrinks a decayed parameter by `learning_rate * weight_decay`.
big_vision's `wd` is this number times the base learning rate.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from transformer_jax import paths, types
from transformer_jax.optim import directions, masks

MomentDtype = Literal["float32", "bfloat16"]


def sgd(
    abstract_params: Mapping[str, Any],
    *,
    momentum: float | int = 0.9,
    nesterov: bool = False,
    moment_dtype: MomentDtype = "float32",
    weight_decay: float | int = 0.0,
    decay: masks.Rules = masks.KERNELS,
    freeze: Sequence[str] = (),
    multipliers: masks.Rules = (),
    clip_norm: float | int | None = 1.0,
    stacks: Mapping[str, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent with momentum (undamped: `m = momentum * m + g`)."""
    _check_fraction(momentum=momentum)
    direction = directions.momentum(decay=momentum, nesterov=nesterov, moment_dtype=moment_dtype)
    treatments = masks.plan(
        abstract_params,
        stacks=stacks or {},
        weight_decay=weight_decay,
        decay=decay,
        freeze=freeze,
        multipliers=multipliers,
    )
    return _compose(direction, treatments, clip_norm)


def adamw(
    abstract_params: Mapping[str, Any],
    *,
    b1: float | int = 0.9,
    b2: float | int = 0.999,
    eps: float | int = 1e-8,
    moment_dtype: MomentDtype = "float32",
    weight_decay: float | int = 0.0,
    decay: masks.Rules = masks.KERNELS,
    freeze: Sequence[str] = (),
    multipliers: masks.Rules = (),
    clip_norm: float | int | None = 1.0,
    stacks: Mapping[str, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam (1412.6980) with decoupled weight decay (1711.05101). `adam` is another name for it.

    `moment_dtype` is that of the first moment.
    """
    _check_fraction(b1=b1, b2=b2)
    direction = directions.adam(b1=b1, b2=b2, eps=eps, moment_dtype=moment_dtype)
    treatments = masks.plan(
        abstract_params,
        stacks=stacks or {},
        weight_decay=weight_decay,
        decay=decay,
        freeze=freeze,
        multipliers=multipliers,
    )
    return _compose(direction, treatments, clip_norm)


def adafactor(
    abstract_params: Mapping[str, Any],
    *,
    momentum: float | int = 0.9,
    decay_rate: float | int = 0.8,
    beta2_cap: float | int = 0.999,
    min_size: int = 32,
    clip_update: float | int | None = None,
    eps: float | int = 1e-30,
    moment_dtype: MomentDtype = "bfloat16",
    weight_decay: float | int = 0.0,
    decay: masks.Rules = masks.KERNELS,
    freeze: Sequence[str] = (),
    multipliers: masks.Rules = (),
    clip_norm: float | int | None = 1.0,
    stacks: Mapping[str, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor (1804.04235) as Scaling Vision Transformers uses it (2106.04560; big_vision's optax.py).

    The second moment of a matrix with both sides at least `min_size` is kept as the means of its rows and columns. It
    decays by `min(beta2_cap, 1 - t^-decay_rate)`; the first is in bfloat16; no rate is relative to the parameter.
    `clip_update` bounds the root mean square of a parameter's direction (1.0 in the first paper, off in big_vision).
    """
    _check_fraction(momentum=momentum, beta2_cap=beta2_cap)
    direction = directions.factored(
        momentum=momentum,
        decay_rate=decay_rate,
        beta2_cap=beta2_cap,
        min_size=min_size,
        clip_update=clip_update,
        eps=eps,
        moment_dtype=moment_dtype,
    )
    treatments = masks.plan(
        abstract_params,
        stacks=stacks or {},
        weight_decay=weight_decay,
        decay=decay,
        freeze=freeze,
        multipliers=multipliers,
    )
    return _compose(direction, treatments, clip_norm)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "sgd": sgd,
    "adam": adamw,
    "adamw": adamw,
    "adafactor": adafactor,
}


def build(name: str, abstract_params: Mapping[str, Any], **options: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer of that name for parameters of those shapes.

    `update(grads, state, params, learning_rate=array)` is the change to add, negative already. Its state is
    `{"count": ..., "mu": {...}, ...}`: a nested dictionary like the parameters for each buffer, with nothing in it for
    frozen ones, which keep every bit. `stacks` names the folders whose arrays count layers along their first axis.
    """
    return _constructor(name, options)(abstract_params, **options)


def table(name: str, abstract_params: Mapping[str, Any], **options: Any) -> str:
    """What `build` with the same arguments does to every parameter, as text."""
    constructor = _constructor(name, options)
    optimizer = constructor(abstract_params, **options)
    said = inspect.signature(constructor).bind(abstract_params, **options)
    said.apply_defaults()
    chosen = {key: said.arguments[key] for key in ("weight_decay", "decay", "freeze", "multipliers")}
    treatments = masks.plan(abstract_params, stacks=said.arguments["stacks"] or {}, **chosen)
    state = jax.tree.leaves(jax.eval_shape(optimizer.init, abstract_params))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    return f"{masks.table(abstract_params, treatments)}\n{name} keeps {size / 1e6:,.1f} MB beside them"


def _constructor(name: str, options: Mapping[str, Any]) -> Callable[..., optax.GradientTransformationExtraArgs]:
    paths.one_of("optim.name", name, OPTIMIZERS)
    known = list(inspect.signature(OPTIMIZERS[name]).parameters)[1:]
    for key in options:
        if key not in known:
            near = paths.did_you_mean(key, known)
            raise types.InputError(f"{name} takes {', '.join(known)}: {key!r} is none of them.{near}")
    return OPTIMIZERS[name]


def _compose(
    direction: directions.Direction, treatments: Mapping[str, masks.Treatment], clip_norm: float | int | None
) -> optax.GradientTransformationExtraArgs:
    if clip_norm is not None and not clip_norm > 0:
        raise types.InputError(f"clip_norm must be positive, or None for no clipping: it is {clip_norm}.")

    def init(params: Mapping[str, Any]) -> dict[str, Any]:
        buffers = {}
        for path, param in _trained(params, treatments).items():
            for kind, buffer in direction.init(param, treatments[path].layered).items():
                buffers[f"{kind}/{path}"] = buffer
        return {"count": jnp.zeros((), jnp.int32), **paths.unflatten(buffers)}

    def update(
        grads: Mapping[str, Any],
        state: dict[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        learning_rate: Any,
        **unused: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        assert params is not None, "update needs the parameters: update(grads, state, params, learning_rate=...)"
        flat = paths.flatten(params)
        grads = _trained(grads, treatments)
        scale = 1.0 if clip_norm is None else clip_norm / jnp.maximum(optax.global_norm(grads), clip_norm)
        count, before = state["count"], paths.flatten(state)
        kinds = [kind for kind in state if kind != "count"]
        # -0.0 is the number whose addition keeps every bit, that of a negative zero too.
        updates = {path: jnp.full_like(param, -0.0) for path, param in flat.items() if path not in grads}
        after = {}
        for path, grad in grads.items():
            how, param = treatments[path], flat[path].astype(jnp.float32)
            buffers = {kind: before[f"{kind}/{path}"] for kind in kinds if f"{kind}/{path}" in before}
            move, buffers = direction.step(grad.astype(jnp.float32) * scale, buffers, count, how.layered)
            move = move + how.decay * param if np.any(how.decay) else move
            updates[path] = (-(learning_rate * how.multiplier) * move).astype(flat[path].dtype)
            after.update({f"{kind}/{path}": buffer for kind, buffer in buffers.items()})
        return paths.unflatten(dict(sorted(updates.items()))), {"count": count + 1, **paths.unflatten(after)}

    return optax.GradientTransformationExtraArgs(init, update)  # ty: ignore[invalid-argument-type]


def _trained(tree: Mapping[str, Any], treatments: Mapping[str, masks.Treatment]) -> types.FlatTree:
    return {path: leaf for path, leaf in paths.flatten(tree).items() if not treatments[path].frozen}


def _check_fraction(**values: float | int) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise types.InputError(f"{name} must be at least 0 and below 1: it is {value}.")
