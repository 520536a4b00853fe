"""Where an experiment must agree with the weights it takes: what their numbers mean beyond shapes."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax import types
from transformer_jax.data import field_ops, ops
from transformer_jax.experiment import predictor, sections, weights
from transformer_jax.transfer import convert

Settings = Mapping[str, Any]

_log = logging.getLogger(__name__)
# Conventions that make another model of the same parameters: nobody judges weights with another on purpose.
_STRUCTURE = ("pool", "class_token", "norm_placement", "position")


def begun(settings: Settings, source: convert.Source) -> dict[str, Any]:
    """The experiment that begins with these weights, with their conventions where it names none.

    Its own choice is kept; it is warned of where it is another, and of pixels in another range.
    """
    fault = _pixels(settings, source)
    if fault:
        warn(f"config.data.preprocess puts pixels elsewhere than the weights of {source.name} saw them: {fault}")
    return _settled(settings, source, weights.conventions(source))


def judged(settings: Settings, source: convert.Source, path: str) -> dict[str, Any]:
    """The experiment that judges these weights, with their conventions where it names none.

    Raises `InputError` where it pools, places or normalises otherwise: the numbers would be those of another model.
    """
    known = weights.conventions(source)
    for key in _STRUCTURE:
        ours, theirs = settings["model"].get(key), known.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            raise types.InputError(
                f"Weights are judged as they were trained: config.model.{key}={ours!r}, those of {path} were trained"
                f" with {theirs!r}. Leave it out to follow them."
            )
    fault = _pixels(settings, source)
    if fault:
        raise types.InputError(f"Weights are judged on pixels as they were trained on: of {path}, {fault}")
    return _settled(settings, source, known)


@functools.cache
def warn(message: str) -> None:
    """Once a process: a protocol prepares the same experiment many times."""
    _log.warning(message)


def _settled(settings: Settings, source: convert.Source, known: Mapping[str, Any]) -> dict[str, Any]:
    for key in sections.CONVENTIONS:
        ours, theirs = settings["model"].get(key), known.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            warn(
                f"config.model.{key}={ours!r} is kept, though the weights of {source.name} were trained with"
                f" {theirs!r}. Leave it out to follow them."
            )
    if settings["model"].get("pool") not in (None, known.get("pool")):  # what belongs to their pool goes with it
        known = {key: value for key, value in known.items() if key not in ("class_token", "pool_norm")}
    return sections.settled(settings, known)


def _pixels(settings: Settings, source: convert.Source) -> str | None:
    """What to write where the preprocessing puts pixels elsewhere than the weights saw them; `None` when it does not,
    or one of the two does not tell."""
    theirs, text = predictor.normalization(source), settings["data"]["preprocess"]
    scaled = [op for op in ops.parse(text) if isinstance(op, field_ops.ValueRange | field_ops.Normalize)]
    ours = next((op.pixel_range for op in reversed(scaled) if op.key == "image"), None)
    if not theirs or ours is None:
        return None
    mean, std = (np.asarray(theirs[key], np.float64) for key in ("mean", "std"))
    pairs = zip(ours, (-mean / std, (1 - mean) / std), strict=True)
    if all(_alike(np.asarray(own, np.float64), edge) for own, edge in pairs):
        return None
    return (
        f"where a level of 0 becomes {_rounded(-mean / std)} and 255 {_rounded((1 - mean) / std)}; {text!r} makes them"
        f" {_rounded(ours[0])} and {_rounded(ours[1])}. End every preprocess in {predictor.pixels(theirs)}."
    )


def _alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two edges are the same, one number or one a channel, but for rounding in a configuration."""
    known = {edge.size for edge in (ours, theirs)} - {1}
    return len(known) <= 1 and bool(np.allclose(ours, theirs, rtol=0, atol=2e-3))


def _rounded(edge: Any) -> str:
    return ", ".join(f"{x:.4g}" for x in np.atleast_1d(np.asarray(edge, np.float64)))
