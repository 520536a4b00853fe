"""Convolutions and pooling of feature maps, (batch, height, width, channels)."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax import paths
from transformer_jax.nn import lean, linear

PADDINGS = ("same", "fixed")
"""`same` is TensorFlow's SAME: as little as the output size `ceil(input / stride)` needs, the odd row at the end.
`fixed` pads by the size of the kernel alone, equally on both sides, as Big Transfer and PyTorch do. They differ where
the stride is 2 and the side of the map even."""
EPSILONS = ("std", "variance")


class StdConv(nnx.Module):
    """A convolution without bias that standardises each of its filters at every call (Qiao et al., 1903.10520).

    `epsilon` is added to the standard deviation of a filter (`epsilon_of="std"`: google-research/vision_transformer and
    big_vision, 1e-5) or under its root (`"variance"`: timm 1e-8, Big Transfer 1e-10). Statistics are float32; a
    constant filter becomes zeros and has a finite gradient.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: int = 1,
        stride: int = 1,
        padding: str = "same",
        epsilon: float = 1e-5,
        epsilon_of: str = "std",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride, self.padding = stride, paths.one_of("The padding", padding, PADDINGS)
        self.epsilon, self.epsilon_of = epsilon, paths.one_of("epsilon_of", epsilon_of, EPSILONS)
        self.dtype = dtype
        matrix = linear.LECUN(rngs.params(), (size * size * inputs, outputs), param_dtype)
        axes = ("height", "width", "channels", "embed")
        self.kernel = nnx.Param(matrix.reshape(size, size, inputs, outputs), axes=axes)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns embed"]:
        kernel = standardise(self.kernel[...].astype(jnp.float32), epsilon=self.epsilon, of=self.epsilon_of)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.padding)


def standardise(
    kernel: Float[Array, "height width channels embed"], *, epsilon: float, of: str
) -> Float[Array, "height width channels embed"]:
    """The kernel, every filter with mean 0 and standard deviation 1 (but for `epsilon`)."""
    kernel = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(kernel), axis=(0, 1, 2), keepdims=True)
    if of == "variance":
        return kernel * jax.lax.rsqrt(variance + epsilon)
    constant = variance == 0.0  # where the root has no derivative
    return kernel / (jnp.where(constant, 0.0, jnp.sqrt(jnp.where(constant, 1.0, variance))) + epsilon)


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels embed"],
    *,
    stride: int = 1,
    padding: str = "same",
) -> Float[Array, "batch rows columns embed"]:
    """The convolution; one of 1x1 is a matrix product of the positions the stride meets."""
    size = kernel.shape[0]
    if size == 1:
        return linear.dense(x[:, ::stride, ::stride], kernel=kernel[0, 0], bias=None)
    around = "SAME" if padding == "same" else [_both_sides(size)] * 2
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=layout)


def max_pool(
    x: Float[Array, "batch height width channels"], *, size: int = 3, stride: int = 2, padding: str = "same"
) -> Float[Array, "batch rows columns channels"]:
    """The maximum of every window. `same` ignores what lies outside; `fixed` sees zeros there, as Big Transfer does."""
    if padding == "fixed":
        sides, outside = [_both_sides(size)] * 2, 0.0
    else:
        sides, outside = [_same_sides(length, size, stride) for length in x.shape[1:3]], -jnp.inf
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)), constant_values=outside)
    if lean.wanted():  # the gradient of a window's maximum takes three times as long on CPU
        return _max_along(_max_along(x, 1, size, stride), 2, size, stride)
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")


def _max_along(x: jax.Array, axis: int, size: int, stride: int) -> jax.Array:
    """The maximum of every window along one axis, as the maximum of `size` strided slices."""
    last = (x.shape[axis] - size) // stride * stride
    slices = [jax.lax.slice_in_dim(x, start, start + last + 1, stride, axis) for start in range(size)]
    return functools.reduce(jnp.maximum, slices)


def _both_sides(size: int) -> tuple[int, int]:
    return (size - 1) // 2, size // 2


def _same_sides(length: int, size: int, stride: int) -> tuple[int, int]:
    missing = max((-(-length // stride) - 1) * stride + size - length, 0)
    return missing // 2, missing - missing // 2
