"""Which of our parameters is which array of a published layout: tables, read in both directions.

A rule is a pair of names with the same `{placeholders}`, and the axes of length one the other side puts in front.
Our names are the neutral ones of a checkpoint (`blocks/3/mlp/up/kernel`): layers apart, no framework in them.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from transformer_jax import types

_PLACEHOLDERS = {
    "i": r"\d+",
    "part": "query|key|value|out",
    "leaf": "kernel|bias|scale",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table. `padding` is the number of axes of length one in front of their array."""

    ours: str
    theirs: str
    padding: int = 0


Table = tuple[Rule, ...]

# checkpoint_layouts 3.1: the files of ViT (2020, with pre_logits) and AugReg (without), flax names from before linen.
GOOGLE: Table = (
    Rule("cls", "cls", padding=2),
    Rule("position", "Transformer/posembed_input/pos_embedding", padding=1),
    Rule("embedding/{leaf}", "embedding/{leaf}"),
    Rule("blocks/{i}/norm1/{leaf}", "Transformer/encoderblock_{i}/LayerNorm_0/{leaf}"),
    Rule(
        "blocks/{i}/attention/{part}/{leaf}",
        "Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/{part}/{leaf}",
    ),
    Rule("blocks/{i}/norm2/{leaf}", "Transformer/encoderblock_{i}/LayerNorm_2/{leaf}"),
    Rule("blocks/{i}/mlp/up/{leaf}", "Transformer/encoderblock_{i}/MlpBlock_3/Dense_0/{leaf}"),
    Rule("blocks/{i}/mlp/down/{leaf}", "Transformer/encoderblock_{i}/MlpBlock_3/Dense_1/{leaf}"),
    Rule("norm/{leaf}", "Transformer/encoder_norm/{leaf}"),
    Rule("pre_logits/{leaf}", "pre_logits/{leaf}"),
    Rule("head/{leaf}", "head/{leaf}"),
)
TABLES: dict[str, Table] = {"google": GOOGLE}
# Training states of the same code wrap the parameters; their other entries are optimizer state and counters.
PREFIXES = ("opt/target/", "params/")


class Renamed(NamedTuple):
    """Arrays under their new names, and the names of those no rule speaks of."""

    arrays: dict[str, np.ndarray]
    unused: tuple[str, ...]


def layout(names: Iterable[str]) -> str:
    """`"neutral"` for our own names, else the table whose names these are. `InputError` for names of nobody."""
    names = [next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name) for name in names]
    for key, table in TABLES.items():
        if any(_renames(name, table, back=True) for name in names):
            return key
        if any(_renames(name, table, back=False) for name in names):
            return "neutral"
    raise types.InputError(
        f"Parameter names must be ours (blocks/0/...) or those of a table ({', '.join(TABLES)}:"
        f" Transformer/encoderblock_0/...): these begin with {sorted(names)[:4]}.{_foreign(names)}"
    )


def unwrap(arrays: Mapping[str, np.ndarray]) -> Renamed:
    """The arrays without the wrapper of a training state; what lies outside it is unused."""
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in arrays)), "")
    inside = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return Renamed(inside, tuple(name for name in arrays if not name.startswith(prefix)))


def to_neutral(arrays: Mapping[str, np.ndarray], table: Table = GOOGLE) -> Renamed:
    """The arrays of a published layout under our names. With a wrapper, what lies outside it is unused."""
    inside, outside = unwrap(arrays)
    renamed: dict[str, np.ndarray] = {}
    unused = list(outside)
    for name, array in inside.items():
        found = _translate(name, table, back=True)
        if found is None:
            unused.append(name)
            continue
        ours, rule = found
        if array.shape[: rule.padding] != (1,) * rule.padding:
            raise types.InputError(
                f"{name!r} must begin with {rule.padding} axes of length 1: its shape is {array.shape}."
            )
        renamed[ours] = array.reshape(array.shape[rule.padding :])
    return Renamed(renamed, tuple(unused))


def from_neutral(arrays: Mapping[str, np.ndarray], table: Table = GOOGLE) -> Renamed:
    """The inverse of `to_neutral`: our arrays under the names of a published layout."""
    renamed: dict[str, np.ndarray] = {}
    unused = []
    for name, array in arrays.items():
        found = _translate(name, table, back=False)
        if found is None:
            unused.append(name)
            continue
        theirs, rule = found
        renamed[theirs] = array.reshape((1,) * rule.padding + array.shape)
    return Renamed(renamed, tuple(unused))


def rename(name: str, table: Table = GOOGLE) -> str | None:
    """The name a published layout has for one of our parameters; `None` when it has none."""
    found = _translate(name, table, back=False)
    return found and found[0]


def _translate(name: str, table: Table, *, back: bool) -> tuple[str, Rule] | None:
    for rule in table:
        source, target = (rule.theirs, rule.ours) if back else (rule.ours, rule.theirs)
        match = re.fullmatch(_pattern(source), name)
        if match:
            return target.format(**match.groupdict()), rule
    return None


def _renames(name: str, table: Table, *, back: bool) -> bool:
    """Whether the table knows the name under another one: `cls` and `head/kernel` tell nothing of a layout."""
    found = _translate(name, table, back=back)
    return found is not None and found[0] != name


def _pattern(template: str) -> str:
    parts = re.split(r"\{(\w+)\}", template)  # text and placeholders in turn
    return "".join(f"(?P<{part}>{_PLACEHOLDERS[part]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _foreign(names: Sequence[str]) -> str:
    """A sentence for layouts we recognise and cannot read."""
    signs = {"patch_embed.proj.weight": "timm's", "vit.embeddings.cls_token": "Hugging Face's"}
    kind = next((kind for sign, kind in signs.items() if sign in names), None)
    return f" They are {kind}, which this version does not read." if kind else ""
