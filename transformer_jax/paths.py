"""Parameters by path: flat names for trees, selection by regular expression, stacked layers by number."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformer_jax import types

SEPARATOR = "/"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> types.FlatTree:
    """A nested mapping as `{"a/b/c": leaf}`, in sorted order. An empty mapping leaves nothing behind."""
    flat: types.FlatTree = {}
    for key in sorted(tree, key=str):
        path = f"{prefix}{SEPARATOR}{key}" if prefix else str(key)
        value = tree[key]
        if isinstance(value, Mapping):
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`. Raises `InputError` when one path is the beginning of another."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise types.InputError(
                    f"A path may not begin with another one: {path!r} continues the leaf {parent!r}."
                )
        if last in node:
            raise types.InputError(f"A path may not begin with another one: {path!r} is both a leaf and a folder.")
        node[last] = leaf
    return tree


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` candidates that look like `name`, most similar first."""
    return difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """` Did you mean 'x' or 'y'?` with a leading space, or nothing when no candidate is near."""
    near = nearest(name, candidates)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """`value`, when it is one of `choices`, else an `InputError` about `name`."""
    choices = list(choices)
    if value not in choices:
        raise types.InputError(
            f"{name} must be one of {', '.join(choices)}: it is {value!r}.{did_you_mean(str(value), choices)}"
        )
    return value


def matches(pattern: str, path: str) -> bool:
    """Whether the regular expression matches the whole path."""
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise types.InputError(f"A pattern must be a regular expression: {pattern!r}: {error}.") from None


def select(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """The paths that match any pattern. A pattern that matches nothing is an `InputError`."""
    names = list(names)
    chosen: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if matches(pattern, name)}
        if not hits:
            raise types.InputError(
                f"Every pattern must match a parameter: {pattern!r} matches none of {len(names)}."
                f"{did_you_mean(pattern, names)} A pattern is a regular expression for the whole path: '.*/kernel'."
            )
        chosen |= hits
    return chosen


def unstack(flat: Mapping[str, Any], stacks: Mapping[str, int], take: Callable[[Any, int], Any] = lambda x, i: x[i]):
    """Leaves under a stack, one per layer: `blocks/norm1/scale [12, 768]` becomes `blocks/0/norm1/scale [768]` to 11.

    `stacks` maps the path of a stack (`"blocks"`) to its number of layers; the stack may stand anywhere inside a longer
    path (`optimizer/mu/blocks/...`). `take(leaf, i)` picks a layer.
    """
    plain: types.FlatTree = {}
    for path, leaf in flat.items():
        found = _find_stack(path, stacks)
        if found is None or tuple(leaf.shape[:1]) != (stacks[found[1]],):  # optimizers keep placeholders there too
            plain[path] = leaf
            continue
        before, stack, after = found
        for i in range(stacks[stack]):
            plain[SEPARATOR.join([*before, stack, str(i), *after])] = take(leaf, i)
    return plain


def stack(flat: Mapping[str, Any], stacks: Mapping[str, int], join: Callable[[list[Any]], Any]) -> types.FlatTree:
    """The inverse of `unstack`. `join(leaves)` stacks the leaves of all layers, in order."""
    stacked: types.FlatTree = {}
    groups: dict[str, dict[int, Any]] = {}
    for path, leaf in flat.items():
        found = _find_stack(path, stacks)
        if found is None or not found[2] or not found[2][0].isdecimal():
            stacked[path] = leaf
            continue
        before, name, (index, *after) = found
        groups.setdefault(SEPARATOR.join([*before, name, *after]), {})[int(index)] = leaf
    for path, layers in groups.items():
        found = _find_stack(path, stacks)
        assert found is not None
        expected = stacks[found[1]]
        if sorted(layers) != list(range(expected)):
            raise types.InputError(
                f"A stack of {expected} layers needs layers 0 to {expected - 1}: {path!r} has {sorted(layers)}."
            )
        stacked[path] = join([layers[i] for i in range(expected)])
    return stacked


def _find_stack(path: str, stacks: Mapping[str, int]) -> tuple[list[str], str, list[str]] | None:
    """The parts of `path` before a stack, the stack, and after it; `None` when it lies under none."""
    parts = path.split(SEPARATOR)
    for name in stacks:
        words = name.split(SEPARATOR)
        for start in range(len(parts) - len(words)):
            if parts[start : start + len(words)] == words:
                return parts[:start], name, parts[start + len(words) :]
    return None
