"""The Vision Transformer (Dosovitskiy et al., 2010.11929) and its later refinements."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from transformer_jax import axes, paths, types
from transformer_jax.models import vit_variants
from transformer_jax.nn import (
    attention,
    blocks,
    dropout,
    embeddings,
    kernels,
    linear,
    mlp,
    norms,
    pooling,
    positions,
    stack,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """A ViT as plain data.

    `variant` is a row of `vit_variants.VARIANTS` and a patch size, `"S/16"`; `width depth heads mlp_dim patch` replace
    its numbers, and with `variant=None` they stand alone. Sizes of images and patches are one number or
    (height, width).
    """

    variant: str | None = "S/16"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_dim: int | None = None
    patch: int | tuple[int, int] | None = None
    image_size: int | tuple[int, int] = 224
    channels: int = 3
    num_classes: int = 1000
    pool: str = "tok"
    """`tok` (class token), `gap` (mean of the patches) or `map` (attention with a learned probe)."""
    class_token: bool | None = None
    """`None`: exactly when `pool` is `tok`."""
    registers: int = 0
    """Extra tokens without position, after the class token, never pooled by `gap` (2309.16588)."""
    position: str = "learned"
    pre_logits: bool | int = False
    """A hidden layer with tanh before the head: `True` as wide as the model, or its width."""
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    """Rate at the last block, growing linearly from 0 at the first."""
    norm: str = "layernorm"
    norm_placement: str = "pre"
    norm_epsilon: float = 1e-6
    mlp: str = "plain"
    activation: str = "gelu_tanh"
    """`gelu_tanh` as the Google checkpoints, `gelu_erf` as timm's and Hugging Face's."""
    kv_heads: int | None = None
    qk_norm: bool = False
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
        if self.pool == "tok" and self.class_token is False:
            raise types.InputError("pool='tok' needs the class token: class_token is False. Take pool='gap' or 'map'.")
        attention.head_sizes(self.size.width, self.size.heads, self.kv_heads)
        positions.fixed(self.position, (1, 1), self.size.width)
        _ = self.grid

    @property
    def size(self) -> vit_variants.Size:
        """Width, depth, heads and MLP width, looked up and replaced."""
        given = {name: getattr(self, name) for name in vit_variants.Size._fields if getattr(self, name) is not None}
        if self.variant is not None:
            return vit_variants.named(self.variant)[0]._replace(**given)
        missing = [name for name in vit_variants.Size._fields if name not in given]
        if missing:
            raise types.InputError(f"A model without a variant needs its sizes: {', '.join(missing)} not given.")
        return vit_variants.Size(**given)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch."""
        if self.patch is not None:
            return _pair(self.patch)
        if self.variant is None:
            raise types.InputError("A model without a variant needs its sizes: patch not given.")
        return _pair(vit_variants.named(self.variant)[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (*_pair(self.image_size), self.channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return embeddings.grid(_pair(self.image_size), self.patch_size)

    @property
    def dtypes(self) -> dict[str, Any]:
        """The two dtype arguments of every layer."""
        return {"dtype": jnp.dtype(self.dtype), "param_dtype": jnp.dtype(self.param_dtype)}

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches."""
        return self.pool == "tok" if self.class_token is None else self.class_token


class ViT(nnx.Module):
    """Patches to tokens, tokens through a stack of blocks, one pooled vector to the logits.

    Tokens stand as (class token, registers, patches). `image` holds numbers that are already normalised.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        width, param_dtype = config.size.width, config.dtypes["param_dtype"]
        shared: dict[str, Any] = dict(**config.dtypes, rngs=rngs)
        self.config = config
        self.embedding = embeddings.PatchEmbedding(width, config.patch_size, channels=config.channels, **shared)
        self.cls = nnx.Param(jnp.zeros((width,), param_dtype), axes=("embed",)) if config.has_class_token else None
        learned = functools.partial(positions.learned, width=width, param_dtype=param_dtype, rngs=rngs)
        self.registers = learned(config.registers) if config.registers else None
        length = config.has_class_token + math.prod(config.grid)
        self.position = learned(length) if config.position == "learned" else None
        self.dropout = dropout.Dropout(config.dropout, rngs=rngs)
        self.blocks = stack.make(functools.partial(_block, config), config.size.depth, rngs=rngs)
        # a post-norm stack ends in a norm already
        self.norm = None if config.norm_placement == "post" else _norm(config)(rngs=rngs)
        self.pool = _pool(config, rngs)
        hidden = width if config.pre_logits is True else int(config.pre_logits)
        self.pre_logits = linear.Dense((width,), (hidden,), axes=("embed", "mlp"), **shared) if hidden else None
        self.head = linear.Dense(
            (hidden or width,),
            (config.num_classes,),
            axes=("mlp" if hidden else "embed", "classes"),
            kernel_init=linear.ZEROS if config.head_zero else linear.LECUN,
            bias=config.head_bias,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """The logits, in float32."""
        return self.head(self.features(image))

    def features(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """What the head sees, in float32: the pooled vector, after `pre_logits` where there is one."""
        x = self.pool(self.tokens(image))
        x = x if self.pre_logits is None else jnp.tanh(self.pre_logits(x))
        return x.astype(jnp.float32)

    def tokens(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch length embed"]:
        """All tokens after the last norm."""
        how = self.config
        if image.shape[1:] != how.image_shape:
            raise types.InputError(
                f"This model takes images of (height, width, channels) {how.image_shape} after the batch:"
                f" got {image.shape}. Resize them, or build the model with their image_size and channels."
            )
        x = axes.constrain(self._embed(image), "batch", "length", "embed")
        x = stack.run(self.blocks, x, stochastic_depth=how.stochastic_depth, scan=how.scan, remat=how.remat)
        return x if self.norm is None else self.norm(x)

    def _embed(self, image: jax.Array) -> jax.Array:
        """Class token, registers and patches, positions added to all but the registers, then dropout."""
        x, prefix = self.embedding(image), int(self.cls is not None)
        if self.cls is not None:
            x = jnp.concatenate([embeddings.repeat(self.cls[...][None], x), x], axis=1)
        if self.position is None:
            table = positions.fixed(self.config.position, self.config.grid, x.shape[2], prefix=prefix)
        else:
            table = self.position[...]
        if table is not None:
            x = x + jnp.asarray(table, x.dtype)[None]
        x = self.dropout(x)
        if self.registers is not None:
            x = jnp.concatenate([x[:, :prefix], embeddings.repeat(self.registers[...], x), x[:, prefix:]], axis=1)
        return x


_CHOICES = {
    "pool": pooling.POOLS,
    "position": positions.POSITIONS,
    "norm": norms.NORMS,
    "norm_placement": blocks.BLOCKS,
    "mlp": mlp.MLPS,
    "activation": mlp.ACTIVATIONS,
    "attention": kernels.BACKENDS,
    "dtype": ("float32", "bfloat16", "float16"),
    "param_dtype": ("float32", "bfloat16", "float16"),
}


def _block(config: Config, rngs: nnx.Rngs) -> nnx.Module:
    """One layer of the stack."""
    size = config.size
    shared: dict[str, Any] = dict(**config.dtypes, rngs=rngs)
    mixer = attention.MultiHeadAttention(
        size.width,
        size.heads,
        kv_heads=config.kv_heads,
        qk_norm=config.qk_norm,
        epsilon=config.norm_epsilon,
        dropout=config.dropout,
        backend=config.attention,
        **shared,
    )
    feed = mlp.MLPS[config.mlp](
        size.width, size.mlp_dim, activation=config.activation, dropout=config.dropout, **shared
    )
    scale = None
    if config.layer_scale is not None:
        scale = functools.partial(blocks.LayerScale, size.width, initial=config.layer_scale, **config.dtypes)
    return blocks.BLOCKS[config.norm_placement](mixer, feed, norm=_norm(config), scale=scale, rngs=rngs)


def _norm(config: Config) -> functools.partial:
    """A factory of norms over the features of a token."""
    return functools.partial(norms.NORMS[config.norm], config.size.width, epsilon=config.norm_epsilon, **config.dtypes)


def _pool(config: Config, rngs: nnx.Rngs) -> nnx.Module:
    """From tokens to one vector, as `config.pool` says."""
    if config.pool == "tok":
        return pooling.Token()
    if config.pool == "gap":
        return pooling.Mean(prefix=config.has_class_token + config.registers)
    return pooling.AttentionPool(
        config.size.width,
        config.size.heads,
        hidden=config.size.mlp_dim,
        activation=config.activation,
        epsilon=config.norm_epsilon,
        rngs=rngs,
        **config.dtypes,
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
