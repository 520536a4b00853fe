"""Where one parameter should go, before the learning rate: momentum, Adam, factored second moments.

All arithmetic is float32; a moment kept in less is read from and rounded to it. One expression a parameter, so that XLA
makes one pass over memory of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Buffers = dict[str, jax.Array]


class Direction(NamedTuple):
    """The arithmetic of an optimizer for one parameter; `layered` says that its first axis counts layers.

    `init(param, layered)` makes its buffers by name, each with the layers axis first where there is one.
    `step(grad, buffers, count, layered)` is the direction to descend and the buffers after it; `count` is the number of
    steps before.
    """

    init: Callable[[jax.Array | jax.ShapeDtypeStruct, bool], Buffers]
    step: Callable[[jax.Array, Buffers, jax.Array, bool], tuple[jax.Array, Buffers]]


def momentum(*, decay: float | int, nesterov: bool, moment_dtype: str) -> Direction:
    """`m = decay * m + g` (heavy ball, undamped); `g + decay * m` with Nesterov. No buffer when decay is 0."""

    def init(param: jax.Array | jax.ShapeDtypeStruct, layered: bool) -> Buffers:
        return {"mu": jnp.zeros(param.shape, moment_dtype)} if decay else {}

    def step(
        grad: Float[Array, "..."], buffers: Buffers, count: Int[Array, ""], layered: bool
    ) -> tuple[Float[Array, "..."], Buffers]:
        if not decay:
            return grad, {}
        mu = grad + decay * _wide(buffers["mu"])
        return grad + decay * mu if nesterov else mu, {"mu": mu.astype(moment_dtype)}

    return Direction(init, step)


def adam(*, b1: float | int, b2: float | int, eps: float | int, moment_dtype: str) -> Direction:
    """`m / (sqrt(v) + eps)`, both moments with their bias corrected (1412.6980); v is always float32."""

    def init(param: jax.Array | jax.ShapeDtypeStruct, layered: bool) -> Buffers:
        return {"mu": jnp.zeros(param.shape, moment_dtype), "nu": jnp.zeros(param.shape, jnp.float32)}

    def step(
        grad: Float[Array, "..."], buffers: Buffers, count: Int[Array, ""], layered: bool
    ) -> tuple[Float[Array, "..."], Buffers]:
        t = count.astype(jnp.float32) + 1.0
        mu = b1 * _wide(buffers["mu"]) + (1.0 - b1) * grad
        nu = b2 * buffers["nu"] + (1.0 - b2) * jnp.square(grad)
        direction = mu * (1.0 / (1.0 - b1**t)) / (jnp.sqrt(nu * (1.0 / (1.0 - b2**t))) + eps)
        return direction, {"mu": mu.astype(moment_dtype), "nu": nu}

    return Direction(init, step)


def factored(
    *,
    momentum: float | int,
    decay_rate: float | int,
    beta2_cap: float | int,
    min_size: int,
    clip_update: float | int | None,
    eps: float | int,
    moment_dtype: str,
) -> Direction:
    """Adafactor (1804.04235) as 2106.04560 changed it: see `optimizers.adafactor`."""

    def init(param: jax.Array | jax.ShapeDtypeStruct, layered: bool) -> Buffers:
        buffers = {"mu": jnp.zeros(param.shape, moment_dtype)} if momentum else {}
        pair = factored_axes(param.shape, layered, min_size)
        if pair is None:
            return {"nu": jnp.zeros(param.shape, jnp.float32), **buffers}
        second, largest = pair
        row, column = (np.delete(param.shape, axis) for axis in (largest, second))
        return {"row": jnp.zeros(row, jnp.float32), "column": jnp.zeros(column, jnp.float32), **buffers}

    def step(
        grad: Float[Array, "..."], buffers: Buffers, count: Int[Array, ""], layered: bool
    ) -> tuple[Float[Array, "..."], Buffers]:
        beta2 = jnp.minimum(beta2_cap, 1.0 - (count.astype(jnp.float32) + 1.0) ** -decay_rate)
        direction, after = _second_moment(grad, buffers, beta2, eps, factored_axes(grad.shape, layered, min_size))
        if clip_update is not None:
            own = tuple(range(1 if layered else 0, grad.ndim))  # each layer is a parameter of its own
            rms = jnp.sqrt(jnp.mean(jnp.square(direction), axis=own, keepdims=True))
            direction = direction / jnp.maximum(1.0, rms / clip_update)
        if momentum:
            direction = momentum * _wide(buffers["mu"]) + (1.0 - momentum) * direction
            after["mu"] = direction.astype(moment_dtype)
        return direction, after

    return Direction(init, step)


def factored_axes(shape: tuple[int, ...], layered: bool, min_size: int) -> tuple[int, int] | None:
    """The second largest and the largest axis, over which the second moment is factored; never the layers axis.

    `None` when either is smaller than `min_size`: the second moment is then kept whole.
    """
    first = 1 if layered else 0
    if len(shape) - first < 2:
        return None
    second, largest = np.argsort(shape[first:], kind="stable")[-2:] + first
    return None if shape[second] < min_size else (int(second), int(largest))


def _second_moment(
    grad: jax.Array, buffers: Buffers, beta2: jax.Array, eps: float | int, pair: tuple[int, int] | None
) -> tuple[jax.Array, Buffers]:
    """The gradient over the root of its second moment, and the second moment."""
    square = jnp.square(grad) + eps
    if pair is None:
        nu = beta2 * buffers["nu"] + (1.0 - beta2) * square
        return grad * jax.lax.rsqrt(nu), {"nu": nu}
    second, largest = pair
    row = beta2 * buffers["row"] + (1.0 - beta2) * jnp.mean(square, axis=largest)
    column = beta2 * buffers["column"] + (1.0 - beta2) * jnp.mean(square, axis=second)
    mean = jnp.mean(row, axis=second - (second > largest), keepdims=True)
    direction = (
        grad * jnp.expand_dims(jax.lax.rsqrt(row / mean), largest) * jnp.expand_dims(jax.lax.rsqrt(column), second)
    )
    return direction, {"row": row, "column": column}


def _wide(moment: jax.Array) -> jax.Array:
    return moment.astype(jnp.float32)
