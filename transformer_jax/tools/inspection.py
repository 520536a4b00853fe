"""What is in a checkpoint of any format we read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax import config
from transformer_jax.training import checkpoint
from transformer_jax.transfer import architecture, convert


def describe(path: str) -> dict[str, Any]:
    """`{"step", "format", "config", "leaves": {path: {"shape", "dtype", "sha256"}}}`, and the guessed architecture.

    Every leaf of our own checkpoints is listed, optimizer state included; of weight files the parameters, under our
    names. `step` and `config` are None where the file does not know them.
    """
    here = Path(path).expanduser()
    if here.is_dir():
        leaves, meta = checkpoint.load_leaves(here)
        params = {n.removeprefix("params/"): leaf for n, leaf in leaves.items() if n.startswith("params/")}
        kind, step = "orbax", meta["step"]
    else:
        source = convert.load(here)
        leaves = params = source.params
        meta, kind, step = source.meta, source.format, source.meta.get("step")
    return {
        "step": step,
        "format": kind,
        "config": meta.get("config"),
        "architecture": architecture.summary(params),
        "leaves": architecture.describe(leaves),
    }


def text(facts: Mapping[str, Any]) -> str:
    """The description for a person: the head, then a line a leaf."""
    leaves = facts["leaves"]
    width = max(map(len, leaves), default=0)
    lines = [
        f"format        {facts['format']}",
        f"step          {'unknown' if facts['step'] is None else facts['step']}",
        f"architecture  {facts['architecture']}",
        f"leaves        {len(leaves)}",
    ]
    for name, leaf in leaves.items():
        shape = "x".join(map(str, leaf["shape"])) or "scalar"
        lines.append(f"  {name:<{width}}  {leaf['dtype']:<9} {shape:<14} {leaf['sha256'][:12]}")
    if facts["config"] is not None:
        lines += ["config", config.text(facts["config"])]
    return "\n".join(lines)
