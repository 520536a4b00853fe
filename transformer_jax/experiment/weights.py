"""Weights from anywhere we read: our run directories and checkpoints, `.npz` and `.safetensors` files."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax import types
from transformer_jax.data import imagenet
from transformer_jax.experiment import program, sections
from transformer_jax.training import checkpoint
from transformer_jax.transfer import companions, convert, layouts, sniffing

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
    here = sniffing.local(os.fspath(path))
    if not here.is_dir():
        return convert.load(Path(path))
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
    knows it, else their layout and the files beside them."""
    saved = companions.saved(source.meta)
    if not saved and source.layout in layouts.LAYOUTS and "embedding/kernel" in source.params:
        return {**source.conventions, **_pooling(source)}
    return {
        **source.conventions,
        **{key: saved[key] for key in sections.CONVENTIONS if saved.get(key) is not None},
    }


def _pooling(source: convert.Source) -> dict[str, Any]:
    """How the tokens of a published ViT become one vector, as far as that is certain. A file with a class token may
    still take the mean: only its notes tell."""
    token = "cls" in source.params
    pool = "map" if "pool/probe" in source.params else source.conventions.get("pool", None if token else "gap")
    if pool is None:
        return {}
    return {"pool": pool, "class_token": None if token == (pool == "tok") else token}


def trained_here(source: convert.Source) -> bool:
    """Whether an experiment of ours is saved beside the weights, so that their class names are those of its data."""
    return bool(source.meta.get("config"))


def class_names(source: convert.Source) -> tuple[str, ...] | None:
    """The classes of the head in the words of data sets; `None` when nobody names them.

    1,000 classes of a published layout are ImageNet's in their usual order, as WordNet ids: what the files beside such
    weights hold are words (`tench, Tinca tinca`), or nothing.
    """
    names = source.meta.get("class_names") or ()
    head = source.params.get("head/kernel")
    if not trained_here(source) and source.layout in layouts.LAYOUTS and head is not None:
        if head.shape[-1] == imagenet.CLASSES and set(names) != set(imagenet.wnids()):
            return imagenet.wnids()
    return tuple(names) or None


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
        source_classes=class_names(source),
        target_classes=None if classes is None or imagenet.numbered(classes) else classes,
    )


def whole(
    source: convert.Source,
    target: program.Program,
    fresh: types.FlatTree,
    *,
    head: bool = True,
    rule: str = "Weights predict as they were trained",
    remedy: str = "",
) -> types.FlatTree:
    """The weights for the model of `target` as they are: nothing resized, nothing left at its random start, no
    parameter left out. Without `head` it does not matter what becomes of the head.

    Raises `InputError` with the `rule` and the `remedy` otherwise.
    """
    found = fit(source, target, fresh, head="auto" if head else "reset")
    report = found.report
    unread = [name for name in source.params if name not in fresh]
    what = [f"{name}: {how}" for name, how in report.resized.items()]
    if head:
        what += [f"{name}: {how}" for name, how in report.reset.items()]
    what += [f"{name} is not there" for name in report.missing if head or not _headed(name)]
    what += [f"{name} would not be used" for name in unread if head or not _headed(name)]
    if what:
        shown = "; ".join(what[:8]) + (f"; and {len(what) - 8} more" if len(what) > 8 else "")
        hidden = any(name.startswith("pre_logits/") for name in unread)
        more = " model.pre_logits=True builds the hidden layer before the head." if hidden else ""
        raise types.InputError(f"{rule}: {source.title} does not fit this model as it is ({shown}).{remedy}{more}")
    return found.params


def _headed(name: str) -> bool:
    return name.startswith(("head/", "head_dist/"))
