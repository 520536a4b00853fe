"""Weights of one model for another: what fits is loaded, the position embedding is resized, the head is kept or reset.

Nothing else may differ. A name or shape that does is an error that names its nearest keys, never a layer left at its
initial values.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer_jax import paths, types
from transformer_jax.transfer import architecture, companions, export, formats, layouts, mismatch, sniffing, surgery
from transformer_jax.transfer.report import Report

HEADS = ("auto", "keep", "reset")
PATCHES = ("error", "pinv")
_HEAD = ("head/", "head_dist/")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights under neutral names (`blocks/3/...`), and what is known of them."""

    params: types.FlatTree
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What was saved beside them: `config`, `class_names`, `model` (keyword arguments of the model's config)."""
    name: str = "memory"
    format: str = "memory"
    layout: str = "neutral"
    sha256: str | None = None
    unused: tuple[str, ...] = ()
    """Names of the file that are no parameters of a model: optimizer state, counters."""
    conventions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the parameters do not show, under the names of the model's config (`activation`, `norm_epsilon`, ...), and
    `normalize`: the `mean` and `std` of every channel that pixels from 0 to 1 are normalised by."""
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the file chose where its layout leaves a choice; `save` writes the same file again with `origins`."""
    heads_known: bool = True
    """False where the layout flattens the heads and their number was only inferred from the width."""

    @property
    def origins(self) -> list[dict[str, Any]]:
        """The layouts these weights had in files, oldest first: `{"layout", "style"}` each, this file's the last."""
        before = [dict(origin) for origin in self.meta.get("origins") or () if origin["layout"] != self.layout]
        return [*before, {"layout": self.layout, "style": dict(self.style)}]

    @property
    def title(self) -> str:
        """Name, format, layout and the beginning of the checksum."""
        digest = f", sha256 {self.sha256[:16]}" if self.sha256 else ""
        layout = f", {self.layout} names" if self.layout != "neutral" else ""
        return f"{self.name} ({self.format}{layout}{digest})"


class Converted(NamedTuple):
    """Parameters for the target, every path of it, and what became of each."""

    params: types.FlatTree
    report: Report


def load(path: str | Path, *, sha256: str | None = None) -> Source:
    """A `.npz` or `.safetensors`, with our names or a published layout, and what lies beside it (`companions`).

    `InputError` when the checksum is another, or the names are those of no layout.
    """
    stored = formats.read(path)
    digest = formats.sha256(path)
    if sha256 is not None and digest != sha256.lower():
        raise types.InputError(f"The sha256 of {str(path)!r} must be {sha256}: it is {digest}. Fetch the file again.")
    key, wrapper = layouts.find(stored.arrays)
    notes = companions.read(sniffing.local(path), stored.meta, key)
    told = {**notes.settings, **notes.model}
    grid = architecture.grid(told)
    found = layouts.read(
        stored.arrays,
        key,
        wrapper=wrapper,
        patches=grid and math.prod(grid),
        norm_biases=bool(notes.model.get("qk_norm_bias")),
    )
    companions.require_pooling(notes, key, found.params)
    params, known = found.params, True
    if key in layouts.LAYOUTS and layouts.LAYOUTS[key].flattened:
        heads, known = architecture.heads(params, told)
        params = surgery.split_heads(params, heads)
    conventions = {**layouts.conventions(key, params, found.style), **notes.settings}
    return Source(
        _narrowed(params, notes.meta.get("dtypes") or {}),
        notes.meta,
        Path(path).name,
        stored.format,
        key,
        digest,
        found.unused,
        conventions,
        found.style,
        heads_known=known,
    )


def model_of(source: Source) -> dict[str, Any]:
    """The model that holds these weights: `functional.from_family(**model_of(source))`.

    The saved config where there is one; else what names and shapes tell, and the conventions of the layout.
    Raises `InputError` when the file tells too little.
    """
    saved = companions.saved(source.meta)
    if saved:
        return {"name": "vit", **{k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}}
    found = architecture.model(source.params, source.conventions, source.title)
    if not source.heads_known and found.get("heads") == 1:
        raise types.InputError(
            f"The number of heads must be known: {source.title} does not show it, and its width is no multiple of 64."
            " Put the config.json of the model beside it."
        )
    return found


def save(
    path: str | Path,
    params: types.FlatTree,
    model: Mapping[str, Any],
    *,
    to: str,
    meta: Mapping[str, Any] | None = None,
    origins: Sequence[Mapping[str, Any]] = (),
) -> export.Saved:
    """Weights as a file that others read. `to` is `npz`, `timm`, `hf`, `safetensors` (our names), or a layout.

    `params` have neutral names; `model` are the keyword arguments of their model's config. `meta` (`class_names`,
    `normalize`, ...) is kept in the file or beside it, as are the `origins` of the source, with which `npz` writes the
    file they came from again. Raises `InputError` when the layout cannot hold this model.
    """
    return export.save(Path(path), params, model, to=to, meta=meta or {}, origins=origins)


def apply(
    source: Source | types.FlatTree,
    target: types.FlatTree,
    *,
    head: str = "auto",
    position: str = "align_corners",
    source_grid: surgery.Grid | None = None,
    target_grid: surgery.Grid | None = None,
    source_prefix: int | None = None,
    target_prefix: int | None = None,
    source_classes: Sequence[str] | None = None,
    target_classes: Sequence[str] | None = None,
    patch: str = "error",
) -> Converted:
    """The target's parameters with the source's values; where those are reset or missing, the target's own leaves.

    So `target` holds freshly initialised arrays, or shapes where the caller fills the gaps. `head`: `auto` keeps it
    when shapes and classes (as far as both are known) are the same, `keep` insists on the shapes, `reset` does not
    look. Grids are squares and prefix tokens the class and distillation tokens unless they are given or saved with the
    source. `patch="pinv"` resizes patches of another size (`surgery.resize_patch`). Values take the target's dtypes.
    Raises `InputError` when anything but the head is missing, anything else has another shape, or a parameter is left
    over that takes part in every answer: only heads, what pools, and the position embedding may be.
    """
    source = source if isinstance(source, Source) else Source(source)
    if head not in HEADS:
        raise types.InputError(f"init_from.head must be one of {', '.join(HEADS)}, not {head!r}.")
    paths.one_of("init_from.patch", patch, PATCHES)
    found = _regrouped(source, target)
    reset = _reset_head(found, target, head, source_classes, target_classes)
    resized = _resize_patch(found, target) if patch == "pinv" else {}
    if "position" in found and "position" in target and _same_width(found["position"], target["position"]):
        old = _Tokens.of(found, source_grid or architecture.grid(companions.saved(source.meta)), source_prefix)
        new = _Tokens.of(target, target_grid, target_prefix)
        if old != new:
            found["position"] = surgery.resize_position(
                found["position"], old.grid, new.grid, prefix=old.prefix, target_prefix=new.prefix, method=position
            )
            resized["position"] = f"{old} -> {new} tokens ({position})"
    missing = tuple(path for path in target if path.startswith(_HEAD) and path not in found)
    mismatch.require_fit(source.title, source.layout, found, target, source.unused, skip={*reset, *missing})
    params, cast = {}, {}
    for path, leaf in target.items():
        params[path] = leaf if path in reset or path in missing else _cast(found[path], leaf.dtype, cast)
    loaded = tuple(path for path in target if path not in {*resized, *reset, *missing})
    unused = tuple(path for path in found if path not in target) + source.unused
    return Converted(params, Report(source.title, loaded, resized, reset, missing, unused, cast))


class _Tokens(NamedTuple):
    """How the rows of a position embedding are laid out."""

    prefix: int
    grid: surgery.Grid

    @classmethod
    def of(cls, flat: types.FlatTree, grid: surgery.Grid | None, prefix: int | None) -> "_Tokens":
        prefix = ("cls" in flat) + ("dist" in flat) if prefix is None else prefix
        return cls(prefix, surgery.grid_of(flat["position"].shape[0], prefix=prefix, grid=grid))

    def __str__(self) -> str:
        return f"{self.prefix} + {self.grid[0]} x {self.grid[1]}"


def _reset_head(
    found: types.FlatTree,
    target: types.FlatTree,
    head: str,
    source_classes: Sequence[str] | None,
    target_classes: Sequence[str] | None,
) -> dict[str, str]:
    """Paths of the target's head that keep their fresh values although the source has a head, and why."""
    ours = [path for path in target if path.startswith(_HEAD)]
    theirs = [path for path in ours if path in found]
    shapes = {path: (tuple(found[path].shape), tuple(target[path].shape)) for path in theirs}
    differ = {path: pair for path, pair in shapes.items() if pair[0] != pair[1]}
    if head == "keep" and (differ or len(theirs) < len(ours)):
        what = ", ".join(f"{path} {old} in the file, {new} in the model" for path, (old, new) in differ.items())
        absent = sorted(set(ours) - set(theirs))
        raise types.InputError(
            f"A head can be kept only when its shapes are the same: {what or f'the file has no {absent}'}."
            " Take init_from.head='auto' or 'reset', or a model with as many classes."
        )
    if not theirs or head == "keep":
        return {}
    if head == "reset":
        return dict.fromkeys(theirs, "fresh values, as asked for")
    if len(theirs) < len(ours):
        return dict.fromkeys(theirs, "fresh values, the head of the file is not complete")
    if differ:
        old, new = next(iter(differ.values()))
        return dict.fromkeys(theirs, f"fresh values for {new[-1]} classes, the file has {old[-1]}")
    if source_classes is not None and target_classes is not None and list(source_classes) != list(target_classes):
        return dict.fromkeys(theirs, f"fresh values, the {len(source_classes)} classes of the file are others")
    return {}


def _narrowed(params: dict[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The parameters in the types they had before a file put several in one array, where nothing is lost."""
    narrow = {path: params[path].astype(np.dtype(word)) for path, word in dtypes.items() if path in params}
    exact = {
        path: leaf for path, leaf in narrow.items() if np.array_equal(leaf.astype(params[path].dtype), params[path])
    }
    return {path: exact.get(path, leaf) for path, leaf in params.items()}


def _regrouped(source: Source, target: types.FlatTree) -> types.FlatTree:
    """The source's parameters, in as many heads as the model where their number was only inferred."""
    query = target.get("blocks/0/attention/query/kernel")
    if source.heads_known or query is None:
        return dict(source.params)
    return surgery.split_heads(source.params, query.shape[1])


def _resize_patch(found: types.FlatTree, target: types.FlatTree) -> dict[str, str]:
    """Resizes the patch embedding in place where the model has other patches, and says how."""
    old, new = (flat["embedding/kernel"].shape if "embedding/kernel" in flat else () for flat in (found, target))
    if len(old) != 4 or len(new) != 4 or old[:2] == new[:2]:
        return {}
    found["embedding/kernel"] = surgery.resize_patch(np.asarray(found["embedding/kernel"]), (new[0], new[1]))
    return {"embedding/kernel": f"{old[0]} x {old[1]} -> {new[0]} x {new[1]} pixels (pseudo-inverse)"}


def _same_width(old: Any, new: Any) -> bool:
    return len(old.shape) == len(new.shape) == 2 and old.shape[1] == new.shape[1]


def _cast(leaf: Any, dtype: Any, cast: dict[str, int]) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype == dtype:
        return array
    how = f"{array.dtype} -> {np.dtype(dtype)}"
    cast[how] = cast.get(how, 0) + 1
    return array.astype(dtype)
