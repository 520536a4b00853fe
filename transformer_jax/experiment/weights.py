"""Weights from anywhere we read: our run directories and checkpoints, `.npz` and `.safetensors` files."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax import types
from transformer_jax.experiment import program, sections
from transformer_jax.training import checkpoint
from transformer_jax.transfer import convert, sniffing

_ROOTS = ("params/", "average/")


def missing(path: str, setting: str = "config.init_from.path") -> list[str]:
    """What stands against reading weights there, for a preflight; empty when nothing does. Names of the hub are
    resolved, so that nothing is fetched later."""
    try:
        sniffing.local(path)
    except types.InputError as error:
        return [f"{setting}: {error}"]
    return []


def load(path: str | os.PathLike[str]) -> convert.Source:
    """Weights under neutral names, with the config and class names saved beside them.

    Of a run that kept a Polyak average, the average: it is what was evaluated.
    """
    here = Path(path).expanduser()
    if not here.is_dir():
        return convert.load(here)
    return of_checkpoint(*checkpoint.load_leaves(here, keep=lambda name: name.startswith(_ROOTS)), here)


def of_checkpoint(leaves: types.FlatTree, meta: Mapping[str, Any], path: Path) -> convert.Source:
    """The weights among the leaves of a checkpoint of ours."""
    root = "average/" if any(name.startswith("average/") for name in leaves) else "params/"
    params = {name.removeprefix(root): leaf for name, leaf in leaves.items() if name.startswith(root)}
    source = convert.Source(params, meta, name=f"{path}, step {meta['step']}", format="orbax")
    told = {**conventions(source), **({"normalize": meta["normalize"]} if meta.get("normalize") else {})}
    return dataclasses.replace(source, conventions=told)


def conventions(source: convert.Source) -> dict[str, Any]:
    """What the weights imply of their model beyond shapes, under names of its config: the experiment saved beside them
    knows it, else their layout."""
    saved = _model(source)
    return {
        **source.conventions,
        **{key: saved[key] for key in sections.CONVENTIONS if saved.get(key) is not None},
    }


def fit(
    source: convert.Source,
    target: program.Program,
    fresh: types.FlatTree,
    *,
    head: str = "auto",
    position: str = "align_corners",
    patch: str = "error",
    classes: tuple[str, ...] | None = None,
) -> convert.Converted:
    """The weights for the model of `target`; `fresh` are its new parameters, kept where the source has none to give."""
    config = target.model.config
    return convert.apply(
        source,
        fresh,
        head=head,
        position=position,
        patch=patch,
        target_grid=config.grid if "position" in fresh else None,
        source_classes=source.meta.get("class_names"),
        target_classes=classes,
    )


def _model(source: convert.Source) -> Mapping[str, Any]:
    """The model saved beside the weights, alone or within its experiment; empty when there is none."""
    return (source.meta.get("config") or {}).get("model") or source.meta.get("model") or {}
