"""Weights of any format we read as a file of any format we write, with the proof that they compute the same."""

import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer_jax import config, models, paths, types
from transformer_jax.experiment import predictor, weights
from transformer_jax.models import functional
from transformer_jax.training import checkpoint
from transformer_jax.transfer import architecture, companions, convert, export, layouts, report

FORMATS = (*export.TARGETS, "orbax", *layouts.LAYOUTS)
HEADS = ("keep", "drop")
_IMAGES = 4
_LAYER = re.compile(r"((?:block_|blocks[./]|layer\.|stages\.))\d+")


class Check(NamedTuple):
    """The same random images through the model before and after: largest difference of logits and of features, their
    largest magnitudes, and whether the best five classes are the same in the same order. `logits` is `None` without a
    head."""

    logits: float | None
    features: float
    scale: float
    same_top5: bool

    def passed(self, tolerance: float) -> bool:
        """Whether everything agrees to the tolerance."""
        return max(self.logits or 0.0, self.features) <= tolerance and self.same_top5

    def text(self, tolerance: float) -> str:
        """One line."""
        logits = "" if self.logits is None else f"logits {self.logits:.2e}, "
        classes = "" if self.logits is None else f", top 5 {'identical' if self.same_top5 else 'differ'}"
        verdict = "passed" if self.passed(tolerance) else "FAILED"
        return (
            f"check {verdict}: largest difference on {_IMAGES} random images {logits}features {self.features:.2e}"
            f" (features up to {self.scale:.2g}){classes}; tolerance {tolerance:g}"
        )


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written, and how it compares."""

    text: str
    check: Check
    passed: bool


def run(
    source: str, target: str, *, to: str, head: str = "keep", image_size: int | None = None, tolerance: float = 1e-4
) -> Converted:
    """Writes the weights at `source` to `target`, reads them back and compares both models.

    `source` is anything weights are read from, a name of the hub too; of a run with a Polyak average, the average is
    taken. `to` is a format, or the name of a layout; `npz` means the layout the weights once came from, where that was
    one of a .npz, and their file is written again. A `target` of timm's or Hugging Face's without an ending becomes a
    folder that `from_pretrained` reads; of `orbax` it is a checkpoint directory. `image_size` resizes the position
    embedding. A check that fails leaves the file. Raises `InputError` when the target exists, or its format cannot hold
    the model.
    """
    paths.one_of("--to", to, FORMATS)
    paths.one_of("--head", head, HEADS)
    place = _place(target, to)
    loaded = weights.load(source)
    params, model, changes = _changed(loaded, head, image_size)
    meta = _meta(loaded, model, head, image_size)
    written = _write(place, params, model, to, meta, loaded.origins)
    check = compare((params, model), place)
    lines = [
        f"Weights from {loaded.title}: {architecture.summary(loaded.params)}",
        *_told(model),
        *changes,
        *_names(params, written, loaded),
        *(f"  note     {note}" for note in (*_doubts(loaded), *written.notes)),
        f"wrote {', '.join(map(str, written.files))}",
        check.text(tolerance),
    ]
    return Converted("\n".join(lines), check, check.passed(tolerance))


def _meta(source: convert.Source, model: Mapping[str, Any], head: str, image_size: int | None) -> dict[str, Any]:
    """What is kept beside the weights. The experiment is not where its preprocessing makes images of another size; its
    loss is, which says what the logits mean."""
    keys = ["step", "loss", *(["class_names"] if head == "keep" else []), *(["config"] if image_size is None else [])]
    meta = {key: source.meta[key] for key in keys if source.meta.get(key) is not None}
    experiment = source.meta.get("config")
    if "config" in meta:
        meta["config"] = {**meta["config"], "model": model}
    elif experiment:
        meta["loss"] = experiment["train"]["loss"]
    normalize = predictor.normalization(source)
    if normalize:
        meta["normalize"] = normalize
    return config.plain(meta)


def compare(before: tuple[types.FlatTree, Mapping[str, Any]], after: Path) -> Check:
    """Parameters with their model against the weights at a path, both at float32 on the same random images."""
    back = weights.load(after)
    first = _outputs(*before, title="the source")
    second = _outputs(back.params, convert.model_of(back), title=str(after))
    difference = {name: float(np.max(np.abs(second[name] - first[name]))) for name in first}
    order = [np.argsort(-found["logits"], kind="stable")[:, :5] for found in (first, second) if "logits" in found]
    return Check(
        difference.get("logits"),
        difference["features"],
        float(np.max(np.abs(first["features"]))),
        all(np.array_equal(order[0], each) for each in order[1:]),
    )


def _outputs(params: types.FlatTree, model: Mapping[str, Any], *, title: str) -> dict[str, np.ndarray]:
    """Features, and logits where there is a head, of the fixed images."""
    settings = {**model, "dtype": "float32", "param_dtype": "float32"}
    family = models.MODELS[settings.pop("name", "vit")]
    built, forward = _forward(family, family.config(**settings))
    abstract = paths.unstack(paths.flatten(built.abstract), built.stacks, _layer)
    found = convert.apply(convert.Source(params, name=title), abstract, **_tokens(built.config, abstract))
    headless = any(name.startswith("head/") for name in found.report.missing)
    missing = {path: np.zeros(abstract[path].shape, np.float32) for path in found.report.missing}
    nested = paths.unflatten(paths.stack({**found.params, **missing}, built.stacks, np.stack))
    image = np.random.default_rng(0).uniform(-1, 1, (_IMAGES, *built.config.image_shape)).astype(np.float32)
    outputs = {name: np.asarray(output) for name, output in forward(nested, image).items()}
    return {"features": outputs["features"]} if headless else outputs


@functools.lru_cache(maxsize=2)
def _forward(family: models.Family, settings: Any) -> tuple[functional.Functional, Callable[..., dict[str, jax.Array]]]:
    """A model, and its compiled outputs. Before and after it is mostly the same one."""
    built = functional.from_config(family, settings)

    def outputs(params: Any, image: jax.Array) -> dict[str, jax.Array]:
        with jax.default_matmul_precision("highest"):
            features, logits = (built.apply(params, image, method=method) for method in ("features", "__call__"))
        return {"features": features, "logits": logits}

    return built, jax.jit(outputs)


def _layer(leaf: jax.ShapeDtypeStruct, _: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _tokens(built: Any, flat: types.FlatTree) -> dict[str, Any]:
    """How the rows of the position embedding lie, which are those of this very model."""
    return {"target_grid": built.grid, "source_grid": built.grid} if "position" in flat else {}


def _changed(
    source: convert.Source, head: str, image_size: int | None
) -> tuple[types.FlatTree, dict[str, Any], list[str]]:
    """Parameters and model as they are to be written, and lines on what was changed."""
    model, params, lines = convert.model_of(source), dict(source.params), []
    if image_size is not None:
        old = functional.from_family(**model).config
        model["image_size"] = image_size
        built = functional.from_family(**model)
        abstract = paths.unstack(paths.flatten(built.abstract), built.stacks, _layer)
        if "position" in abstract:
            resized = convert.apply(source, abstract, source_grid=old.grid, target_grid=built.config.grid)
            params = {path: resized.params[path] for path in abstract if path not in resized.report.missing}
            lines += [f"  resized  {path}: {how}" for path, how in resized.report.resized.items()]
        lines.append(f"  images   {old.image_shape[:2]} -> {built.config.image_shape[:2]}")
        if source.meta.get("config"):
            scaling = predictor.pixels(predictor.normalization(source))
            usual = predictor.published(built.config, scaling)
            lines.append(
                f"  prepare  that of the experiment was for other images; predict now takes the usual: {usual}"
            )
    if head == "drop":
        gone = [path for path in params if path.startswith(("head/", "head_dist/"))]
        params = {path: leaf for path, leaf in params.items() if path not in gone}
        lines.append(f"  dropped  {', '.join(report.fold(gone)) or 'no head is there'}")
    return params, model, lines


def _place(target: str, to: str) -> Path:
    """The file or the directory that is written. `InputError` when it exists or its ending is of another format."""
    place = Path(target).expanduser().absolute()
    torch = to in ("timm", "hf") or (to in layouts.LAYOUTS and layouts.LAYOUTS[to].file == "safetensors")
    ending = ".safetensors" if torch or to == "safetensors" else ".npz"
    if torch and (
        target.endswith("/") or not re.match(r"\.[A-Za-z]", place.suffix)
    ):  # no ending: the 5 of v1.5 is none
        place = place / companions.MODEL_FILE
    elif to != "orbax" and place.suffix != ending:
        raise types.InputError(f"A file of --to {to} ends in {ending}: {target!r} does not. Rename it.")
    if place.exists():
        raise types.InputError(f"Nothing is overwritten: {place} exists. Choose another name, or remove it first.")
    return place


def _write(
    place: Path, params: types.FlatTree, model: Mapping[str, Any], to: str, meta: Mapping[str, Any], origins: Any
) -> export.Saved:
    """Writes beside the place under a temporary name, then moves: whatever stops this leaves nothing half-written."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if to == "orbax":
        past = [origin for origin in origins if origin["layout"] != "neutral"]
        checkpoint.save_params(place, params, {**meta, "model": config.plain(model), "origins": past})
        return export.Saved({path: np.asarray(leaf) for path, leaf in params.items()}, "neutral", (place,))
    draft = place.parent / f".{place.name}.{os.getpid()}.tmp"
    draft.mkdir()
    try:
        saved = convert.save(draft / place.name, params, model, to=to, meta=meta, origins=origins)
        there = [place.with_name(file.name) for file in saved.files]
        taken = [str(file) for file in there if file.exists()]
        if taken:
            raise types.InputError(
                f"Nothing is overwritten: {', '.join(taken)} exists beside other weights. Choose another folder."
            )
        for file, final in reversed(list(zip(saved.files, there, strict=True))):  # the weights last
            file.replace(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return saved._replace(files=tuple(there))


def _told(model: Mapping[str, Any]) -> list[str]:
    """The model, in a line."""
    settings = ", ".join(f"{key}={value!r}" for key, value in model.items() if key not in ("name", "scan", "remat"))
    return [f"  model    {model.get('name', 'vit')}({settings})"]


def _doubts(source: convert.Source) -> list[str]:
    """What was guessed of the source."""
    if source.heads_known:
        return []
    return ["The number of heads is a guess, heads of 64: put the config.json of the model beside its weights."]


def _names(params: types.FlatTree, written: export.Saved, source: convert.Source) -> list[str]:
    """Every array by its name in the file and by ours, layers folded; names of the source that are no parameters."""
    groups: dict[str, list[str]] = {}
    for path in params:
        theirs = layouts.rename(path, written.layout, written.style) or path
        groups.setdefault(_LAYER.sub(r"\1*", theirs), []).append(path)
    if written.layout == "neutral":
        lines = [f"  written  {len(params)} arrays under our names: {', '.join(report.fold(params))}"]
    else:
        lines = [f"  written  {len(written.arrays)} arrays, {written.layout} names, from {len(params)} parameters:"]
        lines += [f"    {theirs}  <-  {', '.join(report.fold(ours))}" for theirs, ours in groups.items()]
    if source.unused:
        lines.append(f"  unused   {', '.join(report.fold(source.unused))}: no parameters, not written")
    return lines
