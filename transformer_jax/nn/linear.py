"""Dense layers over one or several trailing axes, and the one place that decides the layout of their input."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

XAVIER = nnx.initializers.xavier_uniform()
LECUN = nnx.initializers.lecun_normal()
ZEROS = nnx.initializers.zeros_init()


def flatten_tokens() -> bool:
    """Whether dense layers see their tokens as rows of a matrix: on CPU, where XLA is twice as slow on 3-D input.

    Accelerators do not care, and there the tokens keep their axes so that the compiler sees which one is sharded.
    """
    return jax.default_backend() == "cpu"


def dense(x: Float[Array, "..."], kernel: Float[Array, "..."], bias: Float[Array, "..."] | None, *, contract: int = 1):
    """`x @ kernel + bias`, contracting the last `contract` axes of `x` with the first ones of `kernel`."""
    tokens, inputs, outputs = x.shape[: x.ndim - contract], kernel.shape[:contract], kernel.shape[contract:]
    if flatten_tokens():
        rows, columns = math.prod(inputs), math.prod(outputs)
        y = x.reshape(math.prod(tokens), rows) @ kernel.reshape(rows, columns)
        y = y if bias is None else y + bias.reshape(1, columns)
        return y.reshape(*tokens, *outputs)
    axes = tuple(range(len(tokens), x.ndim)), tuple(range(contract))
    y = jax.lax.dot_general(x, kernel, (axes, ((), ())))
    return y if bias is None else y + bias.reshape((1,) * len(tokens) + outputs)


class Dense(nnx.Module):
    """A linear map from the trailing axes `inputs` of a token to `outputs`.

    `axes` names the axes of the kernel, inputs first. Biases start at `bias`: no random number is drawn for them. An
    initialiser sees the kernel as a matrix, so the fan-in of `(heads, head_dim) -> embed` is `heads * head_dim`, as in
    the published ViT.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        axes: tuple[str, ...],
        use_bias: bool = True,
        kernel_init: nnx.Initializer = LECUN,
        bias: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.contract, self.dtype = len(inputs), dtype
        matrix = kernel_init(rngs.params(), (math.prod(inputs), math.prod(outputs)), param_dtype)
        self.kernel = nnx.Param(matrix.reshape(*inputs, *outputs), axes=axes)
        self.bias = nnx.Param(jnp.full(outputs, bias, param_dtype), axes=axes[len(inputs) :]) if use_bias else None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        bias = None if self.bias is None else self.bias[...].astype(self.dtype)
        return dense(x.astype(self.dtype), self.kernel[...].astype(self.dtype), bias, contract=self.contract)
