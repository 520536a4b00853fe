"""What the parameters of a ViT tell of its architecture, read from names and shapes."""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax import types
from transformer_jax.models import vit_variants
from transformer_jax.transfer import surgery


def describe(flat: types.FlatTree) -> dict[str, dict[str, Any]]:
    """`{path: {"shape", "dtype", "sha256"}}`, for JSON. The checksum is of the bytes, row-major and little-endian."""
    return {path: _leaf(np.asarray(leaf)) for path, leaf in sorted(flat.items())}


def guess(flat: types.FlatTree) -> dict[str, Any]:
    """The architecture under the names of `vit.Config`, and `grid`, `head_dim`, `parameters`; what the parameters do
    not tell is `None`. An empty dictionary when there is no patch embedding. Neutral names, layers unstacked.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    if len(shapes.get("embedding/kernel", ())) != 4:
        return {}
    *patch, channels, width = shapes["embedding/kernel"]
    layers = {int(match[1]) for path in shapes if (match := re.match(r"blocks/(\d+)/", path))}
    query = shapes.get("blocks/0/attention/query/kernel", (width, None, None))
    up = shapes.get("blocks/0/mlp/up/kernel", (width, None))
    grid = _grid(shapes)
    size = (width, len(layers), query[1], up[1])
    return {
        "variant": _variant(size, patch),
        **dict(zip(vit_variants.Size._fields, size, strict=True)),
        "head_dim": query[2],
        "patch": _plain(patch),
        "image_size": grid and _plain([side * step for side, step in zip(grid, patch, strict=True)]),
        "grid": grid,
        "channels": channels,
        "num_classes": shapes.get("head/kernel", (None, None))[-1],
        "pool": "tok" if "cls" in shapes else "map" if any(path.startswith("pool/") for path in shapes) else "gap",
        "registers": shapes.get("registers", (0,))[0],
        "pre_logits": shapes.get("pre_logits/kernel", (0, False))[-1],
        "qk_norm": "blocks/0/attention/query_norm/scale" in shapes,
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
    }


def summary(flat: types.FlatTree) -> str:
    """The guess in a line: `B/16 (width 768, 12 blocks, 12 heads, MLP 3072, patch 16), 1000 classes`."""
    found = guess(flat)
    if not found:
        return f"{len(flat)} arrays, not of a ViT"
    sizes = (
        f"width {found['width']}, {found['depth']} blocks, {found['heads']} heads, MLP {found['mlp_dim']},"
        f" patch {found['patch']}"
    )
    name = f"{found['variant']} ({sizes})" if found["variant"] else sizes
    image = f", images of {found['image_size']}" if found["image_size"] else ""
    classes = f"{found['num_classes']} classes" if found["num_classes"] else "no head"
    return f"{name}{image}, {classes}"


def _leaf(array: np.ndarray) -> dict[str, Any]:
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    digest = hashlib.sha256(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest.hexdigest()}


def _grid(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    if "position" not in shapes:
        return None
    try:
        return surgery.grid_of(shapes["position"][0], prefix=int("cls" in shapes))
    except types.InputError:  # not a square: only the configuration knows
        return None


def _variant(size: tuple[int | None, ...], patch: list[int]) -> str | None:
    names = [name for name, row in vit_variants.VARIANTS.items() if tuple(row) == size]
    return f"{names[0]}/{patch[0]}" if names and patch[0] == patch[1] else None


def _plain(pair: list[int]) -> int | tuple[int, ...]:
    return pair[0] if pair[0] == pair[1] else tuple(pair)
