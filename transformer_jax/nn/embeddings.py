"""From pixels to tokens."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer_jax import axes, types
from transformer_jax.nn import linear


def patches(
    image: Float[Array, "batch height width channels"], patch: tuple[int, int]
) -> Float[Array, "batch length pixels"]:
    """The image cut into patches, in reading order, each one flattened row by row."""
    batch, height, width, channels = image.shape
    rows, columns = grid((height, width), patch)
    image = image.reshape(batch, rows, patch[0], columns, patch[1], channels)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch[0] * patch[1] * channels)


def grid(image_size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches. Raises `InputError` when the patch does not divide the image."""
    rows, columns = image_size[0] // patch[0], image_size[1] // patch[1]
    if not rows or not columns or image_size != (rows * patch[0], columns * patch[1]):
        near = max(round(image_size[0] / patch[0]), 1) * patch[0], max(round(image_size[1] / patch[1]), 1) * patch[1]
        raise types.InputError(
            f"The patch size must divide the image size: image {_by(image_size)}, patch {_by(patch)}."
            f" Resize the images to {_by(near)} or choose another patch."
        )
    return rows, columns


class PatchEmbedding(nnx.Module):
    """One token a patch: the strided convolution of the published ViT, as a reshape and one matrix product.

    The kernel keeps the shape of the convolution, (height, width, channels, embed).
    """

    def __init__(
        self,
        width: int,
        patch: tuple[int, int],
        *,
        channels: int = 3,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.patch, self.dtype = patch, dtype
        matrix = linear.LECUN(rngs.params(), (patch[0] * patch[1] * channels, width), param_dtype)
        self.kernel = nnx.Param(matrix.reshape(*patch, channels, width), axes=("height", "width", "channels", "embed"))
        self.bias = nnx.Param(jnp.zeros((width,), param_dtype), axes=("embed",))

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch length embed"]:
        kernel = self.kernel[...].astype(self.dtype)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        bias = self.bias[...].astype(self.dtype)
        x = linear.dense(patches(image.astype(self.dtype), self.patch), kernel=matrix, bias=bias)
        return axes.constrain(x, "batch", "length", "embed")


def repeat(
    tokens: Float[Array, "length embed"], x: Float[Array, "batch _ embed"]
) -> Float[Array, "batch length embed"]:
    """The same tokens for every example of `x`, in its dtype."""
    return jnp.broadcast_to(tokens.astype(x.dtype)[None], (x.shape[0], *tokens.shape))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
