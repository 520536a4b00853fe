"""The language of the tables of names: a line is a pair of names with the same `{placeholders}`, and what becomes of
the array on the way.

`{i}` is a number; `{i-1}` is one less, `{u:02}` has two digits. Our names are the neutral ones of a checkpoint
(`blocks/3/mlp/up/kernel`): layers apart, no framework in them.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from transformer_jax import types

_WORDS = {"part": "query|key|value|out", "leaf": "kernel|bias|scale"}
_FIELD = re.compile(r"\{(\w+?)([+-]\d+)?(?::0(\d))?\}")

Style = dict[str, Any]
"""What a file chose where its layout leaves a choice, by a word of the layout: kept for writing it again."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table. Several of `ours` are one array of theirs, concatenated along its first axis.

    `form` is a key of `FORMS`; `when` a word of the style that must be set for the line to be written, and that is set
    by reading it.
    """

    ours: str | tuple[str, ...]
    theirs: str
    form: str = "same"
    when: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Our names, one or several."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours


Table = tuple[Rule, ...]


class Renamed(NamedTuple):
    """Arrays under their new names, and the names of those no line speaks of."""

    arrays: dict[str, np.ndarray]
    unused: tuple[str, ...]


class Form(NamedTuple):
    """How an array of theirs becomes ours, and back. `read` may note a style for `write`."""

    read: Callable[[np.ndarray, Style], np.ndarray]
    write: Callable[[np.ndarray, Style], np.ndarray]


def read(arrays: Mapping[str, np.ndarray], table: Table, *, style: Style | None = None) -> Renamed:
    """The arrays of a layout under our names. `InputError` when one has not the axes its line says."""
    style = {} if style is None else style
    renamed: dict[str, np.ndarray] = {}
    unused = []
    for name, array in arrays.items():
        found = next(((rule, values) for rule in table if (values := _match(rule.theirs, name)) is not None), None)
        if found is None:
            unused.append(name)
            continue
        rule, values = found
        if rule.when is not None:
            style[rule.when] = True
        try:
            parts = np.split(array, len(rule.parts)) if len(rule.parts) > 1 else [array]
            for ours, part in zip(rule.parts, parts, strict=True):
                renamed[_fill(ours, values)] = FORMS[rule.form].read(part, style)
        except ValueError:
            raise types.InputError(
                f"{name!r} must be {_SAYS.get(rule.form, 'an array of its layout')}: its shape is {array.shape}."
            ) from None
    return Renamed(renamed, tuple(unused))


def write(arrays: Mapping[str, np.ndarray], table: Table, *, style: Style | None = None) -> Renamed:
    """The inverse of `read`: our arrays under the names of a layout."""
    style = {} if style is None else style
    renamed: dict[str, np.ndarray] = {}
    unused = []
    for name in arrays:
        found = target(name, table, style)
        members = found and [_fill(ours, found[1]) for ours in found[0].parts]
        if not found or not members or any(member not in arrays for member in members):
            unused.append(name)
            continue
        if name == members[0]:
            parts = [FORMS[found[0].form].write(np.asarray(arrays[member]), style) for member in members]
            renamed[_fill(found[0].theirs, found[1])] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Renamed(renamed, tuple(unused))


def rename(name: str, table: Table, style: Style | None = None) -> str | None:
    """The name a layout has for one of our parameters; `None` when it has none."""
    found = target(name, table, style or {})
    return found and _fill(found[0].theirs, found[1])


def target(name: str, table: Table, style: Style) -> tuple[Rule, dict[str, str]] | None:
    """The line that speaks of one of our names, and the values of its placeholders."""
    for rule in table:
        if rule.when is not None and not style.get(rule.when):
            continue
        for ours in rule.parts:
            values = _match(ours, name)
            if values is not None:
                return rule, values
    return None


def _match(template: str, name: str) -> dict[str, str] | None:
    """The values of the placeholders, as our names have them."""
    pattern, fields = _compiled(template)
    found = pattern.fullmatch(name)
    if found is None:
        return None
    return {
        field: text if field in _WORDS else str(int(text) - shift)
        for (field, shift), text in zip(fields, found.groups(), strict=True)
    }


def _fill(template: str, values: Mapping[str, str]) -> str:
    def text(field: re.Match[str]) -> str:
        name, shift, digits = field.groups()
        if name in _WORDS:
            return values[name]
        return str(int(values[name]) + int(shift or 0)).zfill(int(digits or 0))

    return _FIELD.sub(text, template)


@functools.cache
def _compiled(template: str) -> tuple[re.Pattern[str], list[tuple[str, int]]]:
    pattern, fields, end = "", [], 0
    for field in _FIELD.finditer(template):
        name, shift, digits = field.groups()
        number = rf"\d{{{digits},}}" if digits else r"\d+"
        pattern += re.escape(template[end : field.start()]) + f"({_WORDS.get(name, number)})"
        fields.append((name, int(shift or 0)))
        end = field.end()
    return re.compile(pattern + re.escape(template[end:])), fields


def _lead(count: int) -> Form:
    """Theirs has `count` axes of length one in front."""

    def read(array: np.ndarray, style: Style) -> np.ndarray:
        if array.shape[:count] != (1,) * count:
            raise ValueError
        return array.reshape(array.shape[count:])

    return Form(read, lambda array, style: array.reshape((1,) * count + array.shape))


def _axes(*order: int) -> Form:
    """Their axes, in the order we want them."""
    back = tuple(int(axis) for axis in np.argsort(order))
    return Form(lambda array, style: array.transpose(order), lambda array, style: array.transpose(back))


def _group(array: np.ndarray, style: Style) -> np.ndarray:
    style["wide_norms"] = array.ndim == 4
    return array.reshape(-1)


FORMS: dict[str, Form] = {
    "same": Form(lambda array, style: array, lambda array, style: array),
    "one": _lead(1),
    "two": _lead(2),
    "dense": _axes(1, 0),
    "conv": _axes(2, 3, 1, 0),
    "conv_dense": Form(
        lambda array, style: array.reshape(array.shape[:2]).T, lambda array, style: array.T[:, :, None, None]
    ),
    # Google's files of hybrids have (64,) or (1, 1, 1, 64), by their age.
    "group": Form(_group, lambda array, style: array.reshape((1, 1, 1, -1)) if style.get("wide_norms") else array),
    # Flattened heads become one head: how many there are is told elsewhere (`surgery.split_heads`).
    "heads": Form(lambda array, style: array.T[:, None], lambda array, style: array.reshape(array.shape[0], -1).T),
    "heads_bias": Form(lambda array, style: array.reshape(1, -1), lambda array, style: array.reshape(-1)),
    "heads_out": Form(lambda array, style: array.T[None], lambda array, style: array.reshape(-1, array.shape[-1]).T),
}
_SAYS = {
    "one": "an array with one axis of length 1 in front",
    "two": "an array with two axes of length 1 in front",
    "dense": "a matrix (outputs, inputs)",
    "conv": "a kernel (outputs, inputs, height, width)",
}
