"""The feed-forward half of a block: plain or gated."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax import axes
from transformer_jax.nn import brief, linear
from transformer_jax.nn import dropout as dropouts

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),  # Flax and the Google checkpoints
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),  # timm and Hugging Face
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class MLP(nnx.Module):
    """`down(activation(up(x)))`, with dropout after each of the two dense layers (2010.11929, B.1)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu_tanh",
        use_bias: bool = True,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        some: dict[str, Any] = dict(
            kernel_init=linear.XAVIER, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        self.activation = activation
        self.up = linear.Dense((width,), (hidden,), axes=("embed", "mlp"), **some)
        self.down = linear.Dense((hidden,), (width,), axes=("mlp", "embed"), **some)
        self.dropout_up = dropouts.Dropout(dropout, rngs=rngs)
        self.dropout_down = dropouts.Dropout(dropout, rngs=rngs)

    def parts(self, x: Float[Array, "batch length embed"]) -> tuple[Float[Array, "batch length mlp"], ...]:
        """What the hidden features of each token are made from."""
        return (self.up(x),)

    @property
    def combine(self) -> Callable[..., jax.Array]:
        """Makes the hidden features of the parts."""
        return ACTIVATIONS[self.activation]

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        parts = tuple(axes.constrain(part, "batch", "length", "mlp") for part in self.parts(x))
        if brief.wanted():
            return self.dropout_down(self.down(self.dropout_up(brief.activation(self.combine, *parts))))
        if self.dropout_up.rate:
            return self.dropout_down(self.down(self.dropout_up(self.combine(*parts))))
        return self.dropout_down(self.down(*parts, combine=self.combine))


class GatedMLP(MLP):
    """`down(activation(gate(x)) * up(x))` (Shazeer, 2002.05202): GEGLU or SwiGLU by its activation."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu_tanh",
        use_bias: bool = True,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        some: dict[str, Any] = dict(use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        super().__init__(width, hidden, activation=activation, dropout=dropout, **some)
        self.gate = linear.Dense((width,), (hidden,), axes=("embed", "mlp"), kernel_init=linear.XAVIER, **some)

    def parts(self, x: Float[Array, "batch length embed"]) -> tuple[Float[Array, "batch length mlp"], ...]:
        """The gate and what it lets through."""
        return self.gate(x), self.up(x)

    @property
    def combine(self) -> Callable[..., jax.Array]:
        """The activation of the gate, times what it lets through."""
        return functools.partial(_gated, ACTIVATIONS[self.activation])


def _gated(activation: Callable[[jax.Array], jax.Array], gate: jax.Array, up: jax.Array) -> jax.Array:
    return activation(gate) * up


MLPS = {"plain": MLP, "gated": GatedMLP}
