"""What is in a checkpoint of any format we read, and the public ones we know of."""

import math
from collections.abc import Mapping
from typing import Any

from transformer_jax import config, types
from transformer_jax.experiment import sections, weights
from transformer_jax.training import checkpoint
from transformer_jax.transfer import architecture, convert, hub, known, sniffing


def describe(path: str) -> dict[str, Any]:
    """`{"step", "format", "layout", "config", "leaves": {path: {"shape", "dtype", "sha256"}}}`, the guessed model
    and its conventions, the sha256 of the file, the number of parameters, and the public model it is.

    Every leaf of our own checkpoints is listed, optimizer state included; of weight files the parameters, under our
    names. Entries are None where the file does not tell: `step`, `config`, `sha256` of a directory, `model` of no ViT
    or ResNet, `known` of no public file.
    """
    here = sniffing.local(path)
    if here.is_dir():
        leaves, meta = checkpoint.load_leaves(here)
        source = weights.of_checkpoint(leaves, meta, here)
    else:
        source = weights.load(path)
        leaves = source.params
    parameters = sum(math.prod(leaf.shape) for leaf in source.params.values())
    public = known.recognise(path if hub.is_name(path) else here, source.sha256, parameters)
    conventions = weights.conventions(source)
    return {
        "step": source.meta.get("step"),
        "format": source.format,
        "layout": source.layout,
        "sha256": source.sha256,
        "known": public and public.source,
        "parameters": parameters,
        "architecture": architecture.summary(source.params),
        "model": _model(source),
        "conventions": config.plain(
            {key: conventions[key] for key in (*sections.CONVENTIONS, "normalize") if key in conventions}
        ),
        "classes": source.meta.get("class_names"),
        "config": source.meta.get("config"),
        "unused": list(source.unused),
        "leaves": architecture.describe(leaves),
    }


def text(facts: Mapping[str, Any]) -> str:
    """The description for a person: the head, then a line a leaf."""
    leaves = facts["leaves"]
    width = max(map(len, leaves), default=0)
    conventions = ", ".join(f"{key}={value!r}" for key, value in facts["conventions"].items())
    head = {
        "format": facts["format"] + ("" if facts["layout"] == "neutral" else f", {facts['layout']} names"),
        "step": "unknown" if facts["step"] is None else facts["step"],
        "sha256": facts["sha256"],
        "known as": facts["known"],
        "architecture": facts["architecture"],
        "model": facts["model"] and ", ".join(f"{key}={value!r}" for key, value in facts["model"].items()),
        "conventions": conventions or "unknown",
        "parameters": f"{facts['parameters']:,}",
        "unused": ", ".join(facts["unused"]),
        "leaves": len(leaves),
    }
    lines = [f"{key:<14}{value}" for key, value in head.items() if value not in (None, "")]
    for name, leaf in leaves.items():
        shape = "x".join(map(str, leaf["shape"])) or "scalar"
        lines.append(f"  {name:<{width}}  {leaf['dtype']:<9} {shape:<14} {leaf['sha256'][:12]}")
    if facts["config"] is not None:
        lines += ["config", config.text(facts["config"])]
    return "\n".join(lines)


def listing() -> list[dict[str, Any]]:
    """The public models that are known, for JSON."""
    return [{**model._asdict(), "name": model.name, "command": model.command} for model in known.MODELS]


def _model(source: convert.Source) -> dict[str, Any] | None:
    """Keyword arguments of the model that holds the weights."""
    try:
        return config.plain(convert.model_of(source))
    except types.InputError:
        return None
