"""Splash attention, JAX's Pallas kernel for TPUs: exact attention that never holds the weights of all pairs of tokens.

Here are the shapes it wants: heads before tokens, lengths that fill its blocks, masks as numbers of positions and of
segments. Nothing but `kernels` imports this file, and that only where the kernel is taken: Pallas is slow to import.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as info
from jaxtyping import Array, Bool, Float, Int

from transformer_jax.nn import masks

LANES = 128
LARGEST = 512
"""Tokens of a block: a multiple of the TPU's 128 lanes; larger blocks of a head of 256 leave its fast memory."""


def attend(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch memory kv_heads head_dim"],
    value: Float[Array, "batch memory kv_heads value_dim"],
    *,
    mask: Bool[Array, "_ 1 1 memory"] | None = None,
    segments: masks.Segments | None = None,
    last: Int[Array, " length"] | None = None,
    interpret: bool = False,
) -> Float[Array, "batch length heads value_dim"]:
    """`kernels.attend` of one device; `last` is the last token that each query may see.

    A query that may attend to nothing takes the mean of some values, padding included.
    """
    length, memory = query.shape[1], key.shape[1]
    rows, columns = block(length), block(memory)
    tokens = _up(length, rows), _up(memory, columns)
    identity = _identity(query.shape[0], (length, memory), tokens, mask, segments)
    kernel = _kernel(rows, columns, tokens, last, interpret)
    by_head = _by_head(query * query.shape[-1] ** -0.5, tokens[0]), _by_head(key, tokens[1]), _by_head(value, tokens[1])
    return jax.vmap(kernel)(*by_head, identity)[:, :, :length].transpose(0, 2, 1, 3)


def block(length: int) -> int:
    """The size of blocks that cover `length` tokens: as few as `LARGEST` allows, and no larger than these need be."""
    return _up(-(-length // -(-length // LARGEST)), LANES)


def _up(length: int, size: int) -> int:
    return -(-length // size) * size


def _by_head(x: Array, length: int) -> Array:
    return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))


def _identity(
    batch: int,
    lengths: tuple[int, int],
    padded: tuple[int, int],
    mask: Array | None,
    segments: masks.Segments | None,
) -> splash.SegmentIds | None:
    """Equal numbers where a query may see a token; -1 for what is hidden from all, padding included."""
    if mask is None and segments is None and lengths[1] == padded[1]:
        return None
    query, memory = segments or (jnp.zeros((batch, size), jnp.int32) for size in lengths)
    memory = memory if mask is None else jnp.where(mask[:, 0, 0], memory, -1)
    fill = [((0, 0), (0, size - length)) for length, size in zip(lengths, padded, strict=True)]
    return splash.SegmentIds(jnp.pad(query, fill[0]), jnp.pad(memory, fill[1], constant_values=-1))


def _sees(last: Array, index: Array) -> Array:
    return last >= index


def _kernel(rows: int, columns: int, tokens: tuple[int, int], last: Array | None, interpret: bool):
    """The kernel of the library, with blocks that no query of theirs may see left out."""
    forward = backward = info.MaskInfo(None, None, None, None, None)
    if last is not None:
        last = jnp.pad(last, (0, tokens[0] - last.shape[0]), mode="edge")
        down, across = jnp.arange(tokens[0] // rows), jnp.arange(tokens[1] // columns)
        run = jnp.max(last.reshape(-1, rows), axis=1)[:, None] >= (across * columns)[None, :]
        kept = run[None].astype(jnp.int32)
        # Where a block is left out, naming one that is needed anyway spares reading another.
        rest: Any = (None, kept, None, last)
        forward = info.MaskInfo(jnp.where(run, across, 0)[None], *rest)
        backward = info.MaskInfo(jnp.where(run, down[:, None], down[-1])[None], *rest)
    sizes = splash.BlockSizes(
        block_q=rows, block_kv=columns, block_q_dkv=rows, block_kv_dkv=columns, block_q_dq=rows, block_kv_dq=columns
    )
    return splash.SplashAttentionKernel(
        forward,
        forward,
        backward,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=None if last is None else _sees,
        interpret=interpret,
    )
