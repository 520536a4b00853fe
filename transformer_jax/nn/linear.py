"""Dense layers over one or several trailing axes."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax.nn import lean

XAVIER = nnx.initializers.xavier_uniform()
LECUN = nnx.initializers.lecun_normal()
ZEROS = nnx.initializers.zeros_init()


def dense(
    *parts: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None,
    contract: int = 1,
    combine: Callable[..., jax.Array] = lean.identity,
) -> Float[Array, "..."]:
    """`combine(*parts) @ kernel + bias`, contracting the last `contract` axes with the first ones of `kernel`."""
    if lean.wanted():
        return lean.dense(combine, contract, parts, kernel, bias)
    x = combine(*parts)
    y = jnp.tensordot(x, kernel, axes=contract)
    return y if bias is None else y + bias.reshape((1,) * (x.ndim - contract) + bias.shape)


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

    def __call__(
        self, *parts: Float[Array, "..."], combine: Callable[..., jax.Array] = lean.identity
    ) -> Float[Array, "..."]:
        return dense(
            *(part.astype(self.dtype) for part in parts),
            kernel=self.kernel[...].astype(self.dtype),
            bias=None if self.bias is None else self.bias[...].astype(self.dtype),
            contract=self.contract,
            combine=combine,
        )
