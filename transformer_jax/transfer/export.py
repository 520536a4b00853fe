"""Our weights as the files of others: names and shapes of a layout, and the notes their libraries build models from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer_jax import types
from transformer_jax.models import vit_config
from transformer_jax.nn import positions
from transformer_jax.transfer import companions, formats, layouts, library_configs, report

TARGETS = ("npz", "timm", "hf", "safetensors")


class Saved(NamedTuple):
    """What was written: the arrays by the names in the file, the layout, the files, and what a reader must know."""

    arrays: dict[str, np.ndarray]
    layout: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def save(
    path: Path,
    params: types.FlatTree,
    model: Mapping[str, Any],
    *,
    to: str,
    meta: Mapping[str, Any],
    style: Mapping[str, Any],
) -> Saved:
    """As `convert.save`."""
    path, family = path.expanduser(), model.get("name", "vit")
    settings = {name: value for name, value in model.items() if name != "name"}
    key = layout(to, family, settings)
    own = {"model": {"name": family, **settings}, **meta}
    if key == "neutral":
        arrays = layouts.write(params, key, style).arrays
        return Saved(arrays, key, _write(path, arrays, own, {}, npz=path.suffix == ".npz"), ())
    if layouts.LAYOUTS[key].family != family:
        raise types.InputError(
            f"The layout {key} is one of the model {layouts.LAYOUTS[key].family}: this is {family}."
            " Write npz, or safetensors, which holds every model."
        )
    config = vit_config.Config(**settings) if family == "vit" else None
    if config and _fixed_table(params, config, key):
        params, own["model"] = _with_table(params, config), {**own["model"], "position": "learned"}
    arrays, chosen = _named(params, config, key, style)
    about = _about(path, config, key, chosen, meta)
    npz = layouts.LAYOUTS[key].file == "npz"
    files = _write(path, arrays, own if npz else {"format": "pt", **own}, about, npz=npz)
    return Saved(arrays, key, files, tuple(library_configs.cautions(config, key) if config else ()))


def layout(to: str, family: str, settings: Mapping[str, Any]) -> str:
    """The layout that a target of the command line means for a model. `InputError` when there is none."""
    meant = {
        "safetensors": "neutral",
        "neutral": "neutral",
        "npz": "bit" if family == "resnet" else "big_vision" if settings.get("pool") == "map" else "google",
        "timm": "timm_bit" if family == "resnet" else "timm",
        "hf": "huggingface_deit" if settings.get("distilled") else "huggingface",
    }
    if to not in meant and to not in layouts.LAYOUTS:
        raise types.InputError(
            f"Weights are written as {', '.join(TARGETS)} or {', '.join(layouts.LAYOUTS)}: not {to!r}."
        )
    return meant.get(to, to)


def _named(
    params: types.FlatTree, config: vit_config.Config | None, key: str, style: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by the names of the layout and the style they were written in. `InputError` when some have none."""
    chosen = dict(style)
    if config:
        faults = library_configs.refusals(config, key)
        if faults:
            raise types.InputError(
                f"The code that reads the layout {key} cannot compute {', '.join(faults)}."
                " Write safetensors, which holds every model."
            )
        chosen.setdefault("norm_after_pool", config.pool_norm == "after")
    arrays, left, chosen = layouts.write(params, key, chosen)
    if left:
        raise types.InputError(
            f"The layout {key} has no names for {', '.join(report.fold(left))}."
            " Write safetensors, which holds every model."
        )
    return arrays, chosen


def _fixed_table(params: types.FlatTree, config: vit_config.Config, key: str) -> bool:
    """Whether positions are a fixed table, where the code of the layout knows learned ones only."""
    known = ("none", "sincos2d") if key == "big_vision" else ("none",)
    return "position" not in params and config.position not in known


def _with_table(params: types.FlatTree, config: vit_config.Config) -> types.FlatTree:
    """The parameters with the fixed position table among them."""
    table = positions.fixed(config.position, config.grid, config.size.width, prefix=config.prefix)
    return params if table is None else params | {"position": table.astype(params["embedding/kernel"].dtype)}


def _about(
    path: Path, config: vit_config.Config | None, key: str, style: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """The configurations the library behind a layout wants beside the weights, by their files."""
    there, about = companions.target(path), {}
    if config and key == "timm":
        about[there] = library_configs.timm(config, style.get("position_rows", "own"), meta)
    elif config and key.startswith("huggingface"):
        about[there] = library_configs.hugging_face(config, meta)
        if path.name == companions.MODEL_FILE:
            about[path.with_name("preprocessor_config.json")] = library_configs.processor(config, meta)
    return {file: notes for file, notes in about.items() if notes}


def _write(
    path: Path, arrays: dict[str, np.ndarray], own: Mapping[str, Any], about: dict[Path, dict[str, Any]], *, npz: bool
) -> tuple[Path, ...]:
    """Writes the weights, and beside them what the file itself cannot keep."""
    if npz:
        about = {companions.target(path): {"transformer_jax": dict(own)}}
    beside = tuple(companions.write(file, notes) for file, notes in about.items())
    if npz:
        formats.write_npz(path, arrays)
    else:
        formats.write_safetensors(path, arrays, own)
    return path, *beside
