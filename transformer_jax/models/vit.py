"""The Vision Transformer (Dosovitskiy et al., 2010.11929) and its later refinements."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from transformer_jax import axes, types
from transformer_jax.models import vit_config
from transformer_jax.nn import (
    attention,
    blocks,
    convolution,
    dropout,
    embeddings,
    linear,
    mlp,
    norms,
    pooling,
    positions,
    residual,
    stack,
)

Config = vit_config.Config
_STEM_WIDTH = 64


class ViT(nnx.Module):
    """Patches to tokens, tokens through a stack of blocks, one pooled vector to the logits.

    Tokens stand as (class token, distillation token, registers, patches). `image` holds numbers that are already
    normalised.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        width, param_dtype = config.size.width, config.dtypes["param_dtype"]
        shared: dict[str, Any] = dict(**config.dtypes, rngs=rngs)
        self.config = config
        self.stem = None if config.stem_units is None else _stem(config, config.stem_units, rngs)
        channels = config.channels if self.stem is None else self.stem.outputs
        self.embedding = embeddings.PatchEmbedding(width, config.patch_size, channels=channels, **shared)
        self.cls = nnx.Param(jnp.zeros((width,), param_dtype), axes=("embed",)) if config.has_class_token else None
        self.dist = nnx.Param(jnp.zeros((width,), param_dtype), axes=("embed",)) if config.distilled else None
        learned = functools.partial(positions.learned, width=width, param_dtype=param_dtype, rngs=rngs)
        self.registers = learned(config.registers) if config.registers else None
        length = config.prefix + math.prod(config.grid)
        self.position = learned(length) if config.position == "learned" else None
        self.dropout = dropout.Dropout(config.dropout, rngs=rngs)
        self.blocks = stack.make(functools.partial(_block, config), config.size.depth, rngs=rngs)
        # a post-norm stack ends in a norm already
        self.norm = None if config.norm_placement == "post" else _norm(config)(rngs=rngs)
        self.pool: Any = _pool(config, rngs)
        hidden = width if config.pre_logits is True else int(config.pre_logits)
        self.pre_logits = linear.Dense((width,), (hidden,), axes=("embed", "mlp"), **shared) if hidden else None
        self.head = _head(config, hidden, rngs)
        self.head_dist = _head(config, hidden, rngs) if config.distilled else None

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        """The logits, in float32."""
        if self.head_dist is None:
            logits = self.head(self.features(image))
        else:
            tokens = self.tokens(image)
            logits = (self.head(tokens[:, 0]) + self.head_dist(tokens[:, 1])) / 2
        return axes.constrain(logits, "batch", "classes")

    def features(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """What the head sees, in float32: the pooled vector, after `pre_logits` where there is one."""
        x = axes.constrain(self.pool(self.tokens(image)), "batch", "embed")
        x = self.norm(x) if self.norm is not None and self.config.pool_norm == "after" else x
        if self.pre_logits is not None:
            x = axes.constrain(jnp.tanh(self.pre_logits(x)), "batch", "mlp")
        return x.astype(jnp.float32)

    def tokens(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch length embed"]:
        """All tokens after the last norm, or before it with `pool_norm="after"`."""
        how, x = self.config, self._embed(image)
        x = stack.run(self.blocks, x, stochastic_depth=how.stochastic_depth, scan=how.scan, remat=how.remat)
        return x if self.norm is None or how.pool_norm == "after" else self.norm(x)

    def attention_maps(
        self, image: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch layers heads length memory"]:
        """How much every head of every layer takes of each token: rows that sum to 1, in float32."""
        x = self._embed(image)
        maps = stack.read(self.blocks, x, lambda block, x: block.attention_weights(x), scan=self.config.scan)
        return jnp.moveaxis(maps, 0, 1)

    def pooling_weights(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch pools length"]:
        """How much of each token the pooled vector takes: one row that sums to 1, or one for every head of `map`."""
        return self.pool.weights(self.tokens(image))

    def _embed(self, image: jax.Array) -> jax.Array:
        """Class tokens, registers and patches, positions added to all but the registers, then dropout."""
        how = self.config
        if image.shape[1:] != how.image_shape:
            raise types.InputError(
                f"This model takes images of (height, width, channels) {how.image_shape} after the batch:"
                f" got {image.shape}. Resize them, or build the model with their image_size and channels."
            )
        x = self.embedding(image if self.stem is None else self.stem(image))
        first = [token[...] for token in (self.cls, self.dist) if token is not None]
        if first:
            x = jnp.concatenate([embeddings.repeat(jnp.stack(first), x), x], axis=1)
        if self.position is None:
            table = positions.fixed(how.position, how.grid, x.shape[2], prefix=how.prefix)
        else:
            table = self.position[...]
        if table is not None:
            x = x + jnp.asarray(table, x.dtype)[None]
        x = self.dropout(x)
        if self.registers is not None:
            parts = [x[:, : how.prefix], embeddings.repeat(self.registers[...], x), x[:, how.prefix :]]
            x = jnp.concatenate(parts, axis=1)
        return axes.constrain(x, "batch", "length", "embed")


def _stem(config: Config, units: tuple[int, ...], rngs: nnx.Rngs) -> residual.Body:
    """The ResNet that makes of the image the map a hybrid cuts into patches."""
    conv = functools.partial(
        convolution.StdConv, epsilon=config.stem_epsilon, epsilon_of=config.stem_epsilon_of, **config.dtypes
    )
    parts = dict(conv=conv, norm=functools.partial(norms.GroupNorm, epsilon=config.stem_norm_epsilon, **config.dtypes))
    return residual.Body(
        config.channels,
        _STEM_WIDTH,
        units=units,
        root=functools.partial(residual.Root, **parts),
        unit=functools.partial(residual.PostActivation, **parts),
        remat=config.remat,
        rngs=rngs,
    )


def _block(config: Config, rngs: nnx.Rngs) -> nnx.Module:
    """One layer of the stack."""
    size = config.size
    shared: dict[str, Any] = dict(**config.dtypes, rngs=rngs)
    mixer = attention.MultiHeadAttention(
        size.width,
        size.heads,
        kv_heads=config.kv_heads,
        qk_norm=config.qk_norm,
        qk_norm_bias=config.qk_norm_bias,
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
        return pooling.Token(count=config.prefix)
    if config.pool == "gap":
        return pooling.Mean(prefix=config.prefix + config.registers)
    return pooling.AttentionPool(
        config.size.width,
        config.size.heads,
        hidden=config.size.mlp_dim,
        activation=config.activation,
        epsilon=config.norm_epsilon,
        rngs=rngs,
        **config.dtypes,
    )


def _head(config: Config, hidden: int, rngs: nnx.Rngs) -> linear.Dense:
    """The classifier, in float32, behind the `hidden` features of `pre_logits` or those of the tokens."""
    return linear.Dense(
        (hidden or config.size.width,),
        (config.num_classes,),
        axes=("mlp" if hidden else "embed", "classes"),
        kernel_init=linear.ZEROS if config.head_zero else linear.LECUN,
        bias=config.head_bias,
        param_dtype=config.dtypes["param_dtype"],
        rngs=rngs,
    )
