"""Where a model looks: attention rolled out over the layers and head by head, drawn over the image.

The patches stand last among the tokens; what stands before them (class and distillation token, registers) is not drawn.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8

from transformer_jax import types
from transformer_jax.data import preview

_TILE = 224
"""Small images are enlarged to about so many pixels."""
_STRENGTH = 0.6  # of the colour over the image


class Attention(NamedTuple):
    """The weights of every layer for one image, and the weights with which its tokens become one vector."""

    layers: Float[np.ndarray, "layers heads length length"]
    pooling: Float[np.ndarray, "pools length"]
    """One row, or a row for each head where the pooling itself is attention (a MAP head)."""


def rollout(layers: Float[np.ndarray, "layers heads length length"]) -> Float[np.ndarray, "length length"]:
    """How much of every token (row) stems from each token that went in (column); rows sum to one.

    The mean over the heads, half of it the identity for the residual connection, multiplied from the first layer to
    the last (Abnar and Zuidema, 2005.00928, section 3).
    """
    identity = np.eye(layers.shape[-1])
    total = identity
    for layer in layers:
        mixed = layer.mean(axis=0, dtype=np.float64) + identity
        total = (mixed / mixed.sum(axis=-1, keepdims=True)) @ total
    return total


def relevance(found: Attention) -> Float[np.ndarray, " length"]:
    """How much of the pooled vector stems from each token that went in, by the rollout; sums to one."""
    return found.pooling.mean(axis=0, dtype=np.float64) @ rollout(found.layers)


def last_heads(found: Attention) -> Float[np.ndarray, "heads length"]:
    """What each head of the last attention gives the pooled vector: of the pooling itself where that is attention,
    otherwise of the last layer."""
    return found.pooling if len(found.pooling) > 1 else found.pooling[0] @ found.layers[-1]


def on_grid(weights: Float[np.ndarray, "... length"], grid: tuple[int, int]) -> Float[np.ndarray, "... rows columns"]:
    """The weights of the patches in their places, summing to one; all the same where the patches have none."""
    patches = weights[..., weights.shape[-1] - math.prod(grid) :].astype(np.float64)
    total = patches.sum(axis=-1, keepdims=True)
    shares = np.where(total > 0, patches / np.where(total > 0, total, 1.0), 1 / math.prod(grid))
    return shares.reshape(*weights.shape[:-1], *grid)


def overlay(
    image: UInt8[np.ndarray, "height width 3"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The image under a colour: dark where the weight is none, yellow at its peak."""
    import matplotlib
    from PIL import Image

    relative = Image.fromarray((heat / heat.max()).astype(np.float32))
    height, width = image.shape[:2]
    smooth = np.asarray(relative.resize((width, height), Image.Resampling.BILINEAR))
    colour = matplotlib.colormaps["inferno"](np.clip(smooth, 0, 1))[..., :3] * 255
    return (image * (1 - _STRENGTH) + colour * _STRENGTH).round().astype(np.uint8)


def visible(
    image: Num[np.ndarray, "height width channels"], pixel_range: tuple[Any, Any] | None
) -> UInt8[np.ndarray, "height width 3"]:
    """A preprocessed image as a person sees it. `pixel_range` is where the model wants black and white, a number or one
    a channel; `None`: its darkest and brightest pixel."""
    if image.shape[2] not in (1, 3):
        raise types.InputError(
            f"Attention is drawn over images of 1 or 3 channels: this model takes {image.shape[2]}. Leave it out."
        )
    if image.dtype != np.uint8:
        low, high = (np.min(image), np.max(image)) if pixel_range is None else map(np.asarray, pixel_range)
        image = (np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def sheet(
    image: UInt8[np.ndarray, "height width 3"], found: Attention, grid: tuple[int, int], *, title: str = "input"
) -> Any:
    """A PIL image: the input over its `title`, the rollout over it, and each head of the last attention over it.

    A caption says how many times the weight of an even spread the peak has; a colour is relative to that peak.
    """
    picture = _enlarged(image)
    heats = [on_grid(relevance(found), grid), *on_grid(last_heads(found), grid)]
    names = ["rollout", *(f"head {number}" for number in range(1, len(heats)))]
    captions = [f"{name}, peak {heat.max() * heat.size:.1f}x" for name, heat in zip(names, heats, strict=True)]
    return preview.sheet([picture, *(overlay(picture, heat) for heat in heats)], [title, *captions])


def _enlarged(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height2 width2 3"]:
    zoom = max(1, _TILE // max(image.shape[:2]))
    return np.ascontiguousarray(image.repeat(zoom, axis=0).repeat(zoom, axis=1))
