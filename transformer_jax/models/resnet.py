"""The ResNets of Big Transfer (Kolesnikov et al., 1912.11370), which the ViT paper compares itself with.

ResNet-V2 with group norms and standardised convolutions. As in Google's own code the padding is fixed, zeros included
before the maximum of the root, and the stride lies on the 3x3 convolutions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from transformer_jax import paths, types
from transformer_jax.nn import convolution, linear, norms, residual, stack


class Size(NamedTuple):
    """One row of the table of variants."""

    units: tuple[int, ...]
    """Residual units in every stage."""
    width: int
    """Channels of the root, which are those of the first stage's 3x3 convolutions; each stage doubles them."""


_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
# Big Transfer publishes the first six (big_transfer, bit_jax/models.py); the ViT paper's figure 5 has the others too.
VARIANTS = {
    f"R{depth}x{factor}": Size(_UNITS[depth], 64 * factor)
    for depth, factor in (
        (50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4), (50, 2), (152, 1), (200, 3),
    )
}  # fmt: skip
_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Config:
    """A ResNet as plain data.

    `variant` is a row of `VARIANTS`, `"R50x1"`; `units` and `width` replace its numbers, and with `variant=None` they
    stand alone. The size of images is one number or (height, width).
    """

    variant: str | None = "R50x1"
    units: tuple[int, ...] | None = None
    width: int | None = None
    image_size: int | tuple[int, int] = 224
    channels: int = 3
    num_classes: int = 1000
    epsilon: float = 1e-10
    epsilon_of: str = "variance"
    """What the epsilon of the weight standardisation is added to: the `variance` of a filter, or its `std`."""
    norm_epsilon: float = 1e-5
    head_zero: bool = True
    head_bias: float = 0.0
    """Initial bias of the head: `-log(num_classes)` or so for a sigmoid loss."""
    remat: str | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        choices = {"epsilon_of": convolution.EPSILONS, "dtype": _DTYPES, "param_dtype": _DTYPES}
        for name, table in choices.items():
            paths.one_of(name, getattr(self, name), table)
        if self.remat is not None:
            paths.one_of("remat", self.remat, stack.REMAT)
        height, width, _ = self.image_shape
        for name, size in (("image_size", min(height, width)), ("channels", self.channels)):
            if size < 1:
                raise types.InputError(f"{name} must be at least 1: it is {getattr(self, name)}.")
        if self.num_classes < 1:
            raise types.InputError(f"num_classes must be at least 1: it is {self.num_classes}.")
        if min(self.size.units, default=0) < 1:
            raise types.InputError(f"A ResNet needs stages of at least 1 unit: units is {self.size.units}.")
        if self.size.width % norms.GROUPS:
            raise types.InputError(f"The width must be a multiple of {norms.GROUPS}: it is {self.size.width}.")

    @property
    def size(self) -> Size:
        """Units and width, looked up and replaced."""
        given = {name: getattr(self, name) for name in Size._fields if getattr(self, name) is not None}
        if self.variant is not None:
            return VARIANTS[paths.one_of("variant", self.variant, VARIANTS)]._replace(**given)
        missing = [name for name in Size._fields if name not in given]
        if missing:
            raise types.InputError(f"A model without a variant needs its sizes: {', '.join(missing)} not given.")
        return Size(**given)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return height, width, self.channels

    @property
    def dtypes(self) -> dict[str, Any]:
        """The two dtype arguments of every layer."""
        return {"dtype": jnp.dtype(self.dtype), "param_dtype": jnp.dtype(self.param_dtype)}


class ResNet(residual.Body):
    """Root and stages, a last norm and ReLU, the mean over the map to the logits.

    `image` holds numbers that are already normalised.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        conv = functools.partial(
            convolution.StdConv,
            padding="fixed",
            epsilon=config.epsilon,
            epsilon_of=config.epsilon_of,
            **config.dtypes,
        )
        norm = functools.partial(norms.GroupNorm, epsilon=config.norm_epsilon, **config.dtypes)
        super().__init__(
            config.channels,
            config.size.width,
            units=config.size.units,
            root=functools.partial(residual.Root, conv=conv),
            unit=functools.partial(residual.PreActivation, conv=conv, norm=norm),
            remat=config.remat,
            rngs=rngs,
        )
        self.config = config
        self.norm = norm(self.outputs, rngs=rngs)
        self.head = linear.Dense(
            (self.outputs,),
            (config.num_classes,),
            axes=("embed", "classes"),
            kernel_init=linear.ZEROS if config.head_zero else linear.LECUN,
            bias=config.head_bias,
            param_dtype=config.dtypes["param_dtype"],
            rngs=rngs,
        )

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """The logits, in float32."""
        return self.head(self.features(image))

    def features(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """What the head sees, in float32: the mean of the map after the last norm and ReLU."""
        if image.shape[1:] != self.config.image_shape:
            raise types.InputError(
                f"This model takes images of (height, width, channels) {self.config.image_shape} after the batch:"
                f" got {image.shape}. Resize them, or build the model with their image_size and channels."
            )
        x = jax.nn.relu(self.norm(super().__call__(image)))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
