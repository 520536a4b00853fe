"""Our weights as the files of others: names and shapes of a layout, and the notes their libraries build models from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer_jax import models, types
from transformer_jax.models import vit_config
from transformer_jax.nn import positions
from transformer_jax.transfer import companions, formats, layouts, library_configs, report

TARGETS = ("npz", "timm", "hf", "safetensors")


class Saved(NamedTuple):
    """What was written: the arrays by the names in the file, the layout, the files, what a reader must know."""

    arrays: dict[str, np.ndarray]
    layout: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    style: Mapping[str, Any] = {}
    """What was chosen where the layout leaves a choice."""


def save(
    path: Path,
    params: types.FlatTree,
    model: Mapping[str, Any],
    *,
    to: str,
    meta: Mapping[str, Any],
    origins: Sequence[Mapping[str, Any]],
) -> Saved:
    """As `convert.save`."""
    path, family = path.expanduser(), model.get("name", "vit")
    settings = {name: value for name, value in model.items() if name != "name"}
    key, head = layout(to, family, settings, origins), any(name.startswith("head/") for name in params)
    style = next((origin["style"] for origin in reversed(origins) if origin["layout"] == key), {})
    meta = {name: value for name, value in meta.items() if head or name != "class_names"}
    own = {"model": {"name": family, **settings}, **meta, **_past(params, key, origins)}
    if key == "neutral":
        arrays = layouts.write(params, key, style).arrays
        return Saved(arrays, key, _write(path, arrays, own, {}, npz=path.suffix == ".npz"), style=style)
    if layouts.LAYOUTS[key].family != family:
        raise types.InputError(
            f"The layout {key} is one of the model {layouts.LAYOUTS[key].family}: this is {family}."
            " Write npz, or safetensors, which holds every model."
        )
    config = models.MODELS[family].config(**settings)
    if _fixed_table(params, config, key):
        params, own["model"] = _with_table(params, config), {**own["model"], "position": "learned"}
    arrays, chosen = _named(params, config, key, style)
    about = _about(path, config, key, chosen, meta, head)
    npz = layouts.LAYOUTS[key].file == "npz"
    files = _write(path, arrays, own if npz else {"format": "pt", **own}, about, npz=npz)
    notes = library_configs.cautions(config, key, layouts.conventions(key, params, chosen), head=head)
    return Saved(arrays, key, files, tuple(notes), chosen)


def layout(to: str, family: str, settings: Mapping[str, Any], origins: Sequence[Mapping[str, Any]] = ()) -> str:
    """The layout that a target of the command line means for a model: `npz` the last one of `origins` that is one, else
    the usual of the model. `InputError` when there is none."""
    if to == "npz":
        for origin in reversed(origins):
            known = layouts.LAYOUTS.get(origin["layout"])
            if known is not None and (known.file, known.family) == ("npz", family):
                return origin["layout"]
    hybrid = family == "vit" and vit_config.Config(**settings).stem_units is not None
    meant = {
        "safetensors": "neutral",
        "neutral": "neutral",
        "npz": "bit" if family == "resnet" else "big_vision" if settings.get("pool") == "map" else "google",
        "timm": "timm_bit" if family == "resnet" else "timm",
        "hf": f"huggingface{'_deit' if settings.get('distilled') else '_hybrid' if hybrid else ''}",
    }
    if to not in meant and to not in layouts.LAYOUTS:
        raise types.InputError(
            f"Weights are written as {', '.join(TARGETS)} or {', '.join(layouts.LAYOUTS)}: not {to!r}."
        )
    return meant.get(to, to)


def _past(params: types.FlatTree, key: str, origins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a file does not show of where its weights come from: `origins`, and the types of arrays it puts together."""
    before = [dict(origin) for origin in origins if origin["layout"] != key]
    words = {path: str(np.asarray(leaf).dtype) for path, leaf in params.items()}
    mixed = key != "neutral" and len({*words.values()}) > 1
    return ({"origins": before} if before else {}) | ({"dtypes": words} if mixed else {})


def _named(
    params: types.FlatTree, config: Any, key: str, style: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by the names of the layout and the style they were written in. `InputError` when some have none."""
    chosen = dict(style)
    if isinstance(config, vit_config.Config):
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


def _fixed_table(params: types.FlatTree, config: Any, key: str) -> bool:
    """Whether positions are a fixed table, where the code of the layout knows learned ones only."""
    known = ("none", "sincos2d") if key == "big_vision" else ("none",)
    return "position" not in params and isinstance(config, vit_config.Config) and config.position not in known


def _with_table(params: types.FlatTree, config: vit_config.Config) -> types.FlatTree:
    """The parameters with the fixed position table among them."""
    table = positions.fixed(config.position, config.grid, config.size.width, prefix=config.prefix)
    return params if table is None else params | {"position": table.astype(params["embedding/kernel"].dtype)}


def _about(
    path: Path, config: Any, key: str, style: Mapping[str, Any], meta: Mapping[str, Any], head: bool
) -> dict[Path, dict[str, Any]]:
    """The configurations the library behind a layout wants beside the weights, by their files."""
    there, about = companions.target(path), {}
    if key == "timm":
        about[there] = library_configs.timm(config, style.get("position_rows", "own"), meta, head=head)
    elif key == "timm_bit":
        about[there] = library_configs.timm_resnet(config, meta, head=head)
    elif key.startswith("huggingface"):
        about[there] = library_configs.hugging_face(config, meta, head=head)
        if path.name == companions.MODEL_FILE:
            about[path.with_name("preprocessor_config.json")] = library_configs.processor(config, meta)
    return {file: notes for file, notes in about.items() if notes}


def _write(
    path: Path, arrays: dict[str, np.ndarray], own: Mapping[str, Any], about: dict[Path, dict[str, Any]], *, npz: bool
) -> tuple[Path, ...]:
    """Writes the weights, and beside them what the file itself cannot keep."""
    if npz:
        about = {companions.target(path): {"transformer_jax": dict(own)}}
    for file in about:
        companions.require_free(file)
    beside = tuple(companions.write(file, notes) for file, notes in about.items())
    if npz:
        formats.write_npz(path, arrays)
    else:
        formats.write_safetensors(path, arrays, own)
    return path, *beside
