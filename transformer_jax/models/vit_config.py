"""What a Vision Transformer is made of, as plain data."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from transformer_jax import paths, types
from transformer_jax.models import vit_variants
from transformer_jax.nn import (
    attention,
    blocks,
    convolution,
    embeddings,
    kernels,
    mlp,
    norms,
    pooling,
    positions,
    residual,
    stack,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """A ViT as plain data.

    `variant` is a row of `vit_variants.VARIANTS` and a patch size, `"S/16"`, behind a stem where it is a hybrid,
    `"R50+B/16"`; `width depth heads mlp_dim patch stem` replace its parts, and with `variant=None` they stand alone.
    Sizes of images and patches are one number or (height, width).
    """

    variant: str | None = "S/16"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_dim: int | None = None
    patch: int | tuple[int, int] | None = None
    """What one token stands for: pixels of the image, or of the map the stem makes of it."""
    stem: tuple[int, ...] | None = None
    """Residual units in every stage of a hybrid's ResNet; `()`: its root alone."""
    stem_epsilon: float = 1e-5
    stem_epsilon_of: str = "std"
    """What the epsilon of the stem's weight standardisation is added to. Google's hybrids: 1e-5 to `std`; timm's: 1e-8
    to `variance`."""
    stem_norm_epsilon: float = 1e-6
    """Of the stem's group norms: 1e-6 as Google's, 1e-5 as timm's."""
    image_size: int | tuple[int, int] = 224
    channels: int = 3
    num_classes: int = 1000
    pool: str = "tok"
    """`tok` (class token), `gap` (mean of the patches) or `map` (attention with a learned probe)."""
    class_token: bool | None = None
    """`None`: exactly when `pool` is `tok`."""
    distilled: bool = False
    """A second class token with a head of its own, trained as the first (DeiT, 2012.12877); the answer is the mean."""
    registers: int = 0
    """Extra tokens without position, after the class tokens, never pooled by `gap` (2309.16588)."""
    position: str = "learned"
    pre_logits: bool | int = False
    """A hidden layer with tanh before the head: `True` as wide as the model, or its width."""
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    """Rate at the last block, growing linearly from 0 at the first."""
    norm: str = "layernorm"
    norm_placement: str = "pre"
    norm_epsilon: float = 1e-6
    pool_norm: str = "before"
    """Where the last norm stands with `pool="gap"`: `before` the mean (big_vision) or `after` it (timm's `fc_norm`)."""
    mlp: str = "plain"
    activation: str = "gelu_tanh"
    """`gelu_tanh` as the Google checkpoints, `gelu_erf` as timm's and Hugging Face's."""
    kv_heads: int | None = None
    qk_norm: bool = False
    qk_norm_bias: bool = False
    """Whether the norms of queries and keys have a bias: ViT-22B's have none, timm's do."""
    layer_scale: float | None = None
    """Initial value of the layer scale; `None`: no layer scale."""
    head_zero: bool = True
    head_bias: float = 0.0
    """Initial bias of the head: `-log(num_classes)` or so for a sigmoid loss."""
    scan: bool = True
    remat: str | None = None
    attention: str = "auto"
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        for name, table in _CHOICES.items():
            paths.one_of(name, getattr(self, name), table)
        for name in (
            "width",
            "depth",
            "heads",
            "mlp_dim",
            "patch",
            "image_size",
            "channels",
            "num_classes",
            "kv_heads",
        ):
            size = getattr(self, name)
            if size is not None and min(_pair(size)) < 1:
                raise types.InputError(f"{name} must be at least 1: it is {size}.")
        if self.registers < 0:
            raise types.InputError(f"registers must be at least 0: it is {self.registers}.")
        if self.remat is not None:
            paths.one_of("remat", self.remat, stack.REMAT)
        for name in ("dropout", "stochastic_depth"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise types.InputError(f"{name} must be at least 0 and below 1: it is {getattr(self, name)}.")
        self._check_pooling()
        if self.stem is not None and min(self.stem, default=1) < 1:
            raise types.InputError(f"Every stage of a stem needs at least 1 unit: stem is {self.stem}.")
        attention.head_sizes(self.size.width, self.size.heads, self.kv_heads)
        positions.fixed(self.position, (1, 1), self.size.width)
        _ = self.grid

    def _check_pooling(self) -> None:
        if self.pool == "tok" and self.class_token is False:
            raise types.InputError("pool='tok' needs the class token: class_token is False. Take pool='gap' or 'map'.")
        if self.distilled and (self.pool != "tok" or self.pre_logits):
            raise types.InputError(
                "A distilled model pools its two class tokens and has no hidden layer: pool is"
                f" {self.pool!r}, pre_logits is {self.pre_logits}. Take pool='tok' and pre_logits=False."
            )
        if self.pool_norm == "after" and (self.pool != "gap" or self.norm_placement == "post"):
            raise types.InputError(
                "pool_norm='after' needs a mean and a last norm: pool is"
                f" {self.pool!r}, norm_placement {self.norm_placement!r}. Take pool='gap' and 'pre' or 'parallel'."
            )

    @property
    def size(self) -> vit_variants.Size:
        """Width, depth, heads and MLP width, looked up and replaced."""
        given = {name: getattr(self, name) for name in vit_variants.Size._fields if getattr(self, name) is not None}
        if self.variant is not None:
            return vit_variants.named(self.variant).size._replace(**given)
        missing = [name for name in vit_variants.Size._fields if name not in given]
        if missing:
            raise types.InputError(f"A model without a variant needs its sizes: {', '.join(missing)} not given.")
        return vit_variants.Size(**given)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, on the map of the stem where there is one."""
        if self.patch is not None:
            return _pair(self.patch)
        if self.variant is None:
            raise types.InputError("A model without a variant needs its sizes: patch not given.")
        return _pair(vit_variants.named(self.variant).patch)

    @property
    def stem_units(self) -> tuple[int, ...] | None:
        """Units in every stage of the stem; `None` without a stem."""
        if self.stem is None and self.variant is not None:
            return vit_variants.named(self.variant).stem
        return self.stem

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (*_pair(self.image_size), self.channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        image, units = _pair(self.image_size), self.stem_units
        if units is None:
            return embeddings.grid(image, self.patch_size)
        rows, columns = (residual.map_side(side, len(units)) for side in image)
        patch = self.patch_size
        if rows % patch[0] or columns % patch[1]:
            step = residual.map_step(len(units))
            raise types.InputError(
                f"The patch size must divide the map of the stem: an image of {image[0]}x{image[1]} becomes"
                f" {rows}x{columns}, the patch is {patch[0]}x{patch[1]}. Resize the images to multiples of"
                f" {step * patch[0]}x{step * patch[1]} or choose another patch."
            )
        return rows // patch[0], columns // patch[1]

    @property
    def dtypes(self) -> dict[str, Any]:
        """The two dtype arguments of every layer."""
        return {"dtype": jnp.dtype(self.dtype), "param_dtype": jnp.dtype(self.param_dtype)}

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches."""
        return self.pool == "tok" if self.class_token is None else self.class_token

    @property
    def prefix(self) -> int:
        """Tokens that have a position but are no patch, and stand first: the class tokens."""
        return int(self.has_class_token) + int(self.distilled)


_CHOICES = {
    "pool": pooling.POOLS,
    "pool_norm": ("before", "after"),
    "stem_epsilon_of": convolution.EPSILONS,
    "position": positions.POSITIONS,
    "norm": norms.NORMS,
    "norm_placement": blocks.BLOCKS,
    "mlp": mlp.MLPS,
    "activation": mlp.ACTIVATIONS,
    "attention": kernels.BACKENDS,
    "dtype": ("float32", "bfloat16", "float16"),
    "param_dtype": ("float32", "bfloat16", "float16"),
}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
