"""What the parameters of a model tell of its architecture, read from names and shapes."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax import models, types
from transformer_jax.models import resnet, vit_config, vit_variants
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
    *patch, _, width = shapes["embedding/kernel"]
    stem = _stem(shapes)
    layers = {int(match[1]) for path in shapes if (match := re.match(r"blocks/(\d+)/", path))}
    query = shapes.get("blocks/0/attention/query/kernel", (width, None, None))
    up = shapes.get("blocks/0/mlp/up/kernel", (width, None))
    grid = _grid(shapes)
    size = (width, len(layers), query[1], up[1])
    step = [side * _stride(stem) for side in patch]
    return {
        "variant": _variant(size, patch, stem),
        **dict(zip(vit_variants.Size._fields, size, strict=True)),
        "head_dim": query[2],
        "patch": _plain(patch),
        "image_size": grid and _plain([side * each for side, each in zip(grid, step, strict=True)]),
        "grid": grid,
        "channels": shapes["embedding/kernel" if stem is None else "stem/root/conv/kernel"][2],
        "num_classes": shapes.get("head/kernel", (None, None))[-1],
        "pool": "map" if "pool/probe" in shapes else "tok" if "cls" in shapes else "gap",
        "registers": shapes.get("registers", (0,))[0],
        "pre_logits": shapes.get("pre_logits/kernel", (0, False))[-1],
        "qk_norm": "blocks/0/attention/query_norm/scale" in shapes,
        "stem": stem,
        **_options(shapes),
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
    }


def model(flat: types.FlatTree, conventions: Mapping[str, Any], title: str = "the file") -> dict[str, Any]:
    """The model that holds these weights, as keyword arguments of `functional.from_family`.

    What shapes do not tell comes from `conventions`, then from the defaults of the config. Raises `InputError` when
    the parameters are of no model here.
    """
    family = "resnet" if "root/conv/kernel" in flat else "vit"
    found = _resnet(flat) if family == "resnet" else guess(flat)
    if not found:
        raise types.InputError(f"The parameters must be those of a ViT or a ResNet: {title} has {summary(flat)}.")
    settings = found if family == "resnet" else _settings(found, conventions)
    usual = {field.name: field.default for field in dataclasses.fields(models.MODELS[family].config)}
    told = {name: value for name, value in conventions.items() if name in usual and name not in _SHOWN}
    if found.get("grid") and math.prod(grid({**settings, **told}) or ()) != math.prod(found["grid"]):
        told.pop("image_size", None)  # the configuration is of another size: the table is what there is
    needed = {
        name: value
        for name, value in {**settings, **told}.items()
        if name in ("variant", *told) or (value is not None and (name in _KEPT or value != usual.get(name)))
    }
    unknown = sorted(name for name in needed if name not in usual)
    if unknown:
        raise types.InputError(f"The model {family} has no setting {', '.join(unknown)}, which {title} needs.")
    return {"name": family, **needed}


def heads(flat: types.FlatTree, told: Mapping[str, Any]) -> tuple[int, bool]:
    """The number of heads where they are flattened, and whether it is known rather than inferred from the width.

    `told` are settings from beside the file; else norms of the queries, the variants with a name, or heads of 64.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    width = shapes.get("embedding/kernel", (0,))[-1]
    if told.get("heads"):
        return int(told["heads"]), True
    if told.get("variant"):
        return vit_variants.named(told["variant"])[0].heads, True
    if "blocks/0/attention/query_norm/scale" in shapes:
        return width // shapes["blocks/0/attention/query_norm/scale"][0], True
    found = guess(flat)
    size = (found.get("width"), found.get("depth"), found.get("mlp_dim"))
    named = [row for row in vit_variants.VARIANTS.values() if (row.width, row.depth, row.mlp_dim) == size]
    if named:
        return named[0].heads, True
    return (width // 64 if width and width % 64 == 0 else 1), False


def grid(told: Mapping[str, Any]) -> surgery.Grid | None:
    """The grid of patches of a model's settings, where they tell it."""
    if not told.get("image_size") or not (told.get("patch") or told.get("variant")):
        return None
    known = {field.name for field in dataclasses.fields(vit_config.Config)}
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k in known}
    try:
        return vit_config.Config(**settings).grid
    except types.InputError:  # settings of another model, or too few
        return None


def summary(flat: types.FlatTree) -> str:
    """The guess in a line: `B/16 (width 768, 12 blocks, 12 heads, MLP 3072, patch 16), 1000 classes`."""
    found, residual = guess(flat), _resnet(flat)
    if residual:
        sizes = residual["variant"] or f"a ResNet of units {residual['units']}, width {residual['width']}"
        return f"{sizes}, {residual['num_classes'] or 'no'} classes"
    if not found:
        return f"{len(flat)} arrays, not of a ViT"
    sizes = (
        f"width {found['width']}, {found['depth']} blocks, {found['heads']} heads, MLP {found['mlp_dim']},"
        f" patch {found['patch']}"
    )
    sizes += f", stem {found['stem']}" if found["stem"] is not None else ""
    name = f"{found['variant']} ({sizes})" if found["variant"] else sizes
    image = f", images of {found['image_size']}" if found["image_size"] else ""
    classes = f"{found['num_classes']} classes" if found["num_classes"] else "no head"
    return f"{name}{image}, {classes}"


def _leaf(array: np.ndarray) -> dict[str, Any]:
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    digest = hashlib.sha256(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest.hexdigest()}


_KEPT = ("image_size", "num_classes")  # told even where they are the default
_SHOWN = ("width", "depth", "mlp_dim", "channels", "heads", "patch", "num_classes", "stem")


def _settings(found: Mapping[str, Any], conventions: Mapping[str, Any]) -> dict[str, Any]:
    """The guess as settings of the model: a variant instead of its sizes, nothing that is the default."""
    sizes = (*vit_variants.Size._fields, "patch")
    drop = {*sizes} if found["variant"] else set()
    drop |= {"head_dim", "grid", "parameters", "class_token", "layer_scale", "stem", "distilled", "registers"}
    settings = {name: value for name, value in found.items() if name not in drop and value is not None}
    settings["variant"] = found["variant"]
    if not found["variant"] and found["stem"] is not None:
        settings["stem"] = found["stem"]
    for name in ("registers", "layer_scale", "distilled"):
        if found[name]:
            settings[name] = found[name]
    pool = conventions.get("pool", found["pool"])
    if found["class_token"] != (pool == "tok"):
        settings["class_token"] = found["class_token"]
    if found["position"] != "learned" and "image_size" in conventions:
        settings["image_size"] = conventions["image_size"]
    return settings


def _options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What names tell of the options of a ViT."""
    key = shapes.get("blocks/0/attention/key/kernel", (None, None))
    query = shapes.get("blocks/0/attention/query/kernel", (None, None))
    options: dict[str, Any] = {
        "class_token": "cls" in shapes,
        "distilled": "dist" in shapes,
        "layer_scale": 1e-5 if "blocks/0/scale1/scale" in shapes else None,
        "position": "learned" if "position" in shapes else "sincos2d",
    }
    if key[1] != query[1]:
        options["kv_heads"] = key[1]
    if "blocks/0/mlp/gate/kernel" in shapes:
        options["mlp"] = "gated"
    if "blocks/0/norm1/scale" in shapes and "blocks/0/norm1/bias" not in shapes:
        options["norm"] = "rmsnorm"
    if "blocks/0/norm1/scale" in shapes and "blocks/0/norm2/scale" not in shapes:
        options["norm_placement"] = "parallel"
    elif "blocks/0/norm1/scale" in shapes and "norm/scale" not in shapes:
        options["norm_placement"] = "post"
    if "blocks/0/attention/query_norm/bias" in shapes:
        options["qk_norm_bias"] = True
    return options


def _stem(shapes: Mapping[str, tuple[int, ...]], prefix: str = "stem/") -> tuple[int, ...] | None:
    """Units of every stage of a ResNet; `None` where there is none."""
    if f"{prefix}root/conv/kernel" not in shapes:
        return None
    units: dict[int, int] = {}
    for path in shapes:
        if match := re.match(rf"{prefix}block(\d+)/unit(\d+)/", path):
            block, unit = int(match[1]), int(match[2])
            units[block] = max(units.get(block, 0), unit)
    return tuple(units[block] for block in sorted(units))


def _stride(stem: tuple[int, ...] | None) -> int:
    """By how much a stem shrinks the image: 4 by its root, 2 more by every stage but the first."""
    return 1 if stem is None else 4 * 2 ** max(len(stem) - 1, 0)


def _resnet(flat: types.FlatTree) -> dict[str, Any]:
    """A ResNet under the names of `resnet.Config`: its units and the width of its root, and the variant they are."""
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    units = _stem(shapes, "")
    if not units:
        return {}
    *_, channels, width = shapes["root/conv/kernel"]
    names = [name for name, row in resnet.VARIANTS.items() if row == (units, width)]
    sizes = {} if names else {"units": units, "width": width}
    classes = shapes.get("head/kernel", (None, None))[-1]
    return {"variant": names[0] if names else None, **sizes, "channels": channels, "num_classes": classes}


def _grid(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    if "position" not in shapes:
        return None
    try:
        return surgery.grid_of(shapes["position"][0], prefix=("cls" in shapes) + ("dist" in shapes))
    except types.InputError:  # not a square: only the configuration knows
        return None


def _variant(size: tuple[int | None, ...], patch: list[int], stem: tuple[int, ...] | None) -> str | None:
    names = [name for name, row in vit_variants.VARIANTS.items() if tuple(row) == size]
    if not names or patch[0] != patch[1]:
        return None
    if stem is None:
        return f"{names[0]}/{patch[0]}"
    stems = [key for key, row in vit_variants.STEMS.items() if row == (stem, patch[0])]
    return stems[0].replace("/", f"+{names[0]}/") if stems else None


def _plain(pair: list[int]) -> int | tuple[int, ...]:
    return pair[0] if pair[0] == pair[1] else tuple(pair)
