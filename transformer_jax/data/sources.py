"""Where examples come from: one protocol, one table of kinds, and `open_source`, which slices any of them.

A source is named `digits` (embedded: nothing to download) or `KIND:ARGUMENT` (`tfds:cifar10`, `folder:PATH`).
An opener, `open(split, **kwargs)` for embedded ones and `open(argument, split, *, data_dir, **kwargs)` for the others,
returns a whole base split (`train`); slices, joins and few-label subsets are made here, the same way for all.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from transformer_jax import paths, types
from transformer_jax.data import splits, views, vtab_labels

EMBEDDED = {
    "digits": "transformer_jax.data.digits:open",
    "glyphs": "transformer_jax.data.glyphs:open",
}
KINDS = {
    "tfds": "transformer_jax.data.tfds:open",
    "folder": "transformer_jax.data.folder:open",
    "private": "transformer_jax.data.private:open",
}


@runtime_checkable
class Source(Protocol):
    """Examples by index, in a fixed order.

    An example is `{"image": encoded bytes or uint8[height, width, channels], "label": int, "id": str}`, and may hold
    more. A source pickles (workers are spawned) and is read from several threads at once.
    A source may also have `__getitems__(indices) -> list of examples` and `labels() -> integer array` where it
    knows a faster way than one by one. Where `multilabel` is True a label is an int32 array of any length, also
    empty; `multihot(classes)` makes a row of it.
    """

    name: str
    """As the user named it, with its split."""
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    """Equal exactly when the examples are: name, split, size, version."""
    in_memory: bool
    """Reading an example costs next to nothing."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


def open_source(
    spec: str,
    split: str = "train",
    *,
    data_dir: str | None = None,
    labels: int | None = None,
    labels_seed: int = 0,
    **source_kwargs: Any,
) -> Source:
    """The examples of `split`. `labels=100` keeps that many, balanced over the classes; the 50 are the 100's first."""
    name, argument = _parse(spec)
    opener = _opener(name)
    extra = _arguments(opener, name, {**source_kwargs, "data_dir": data_dir})
    whole: dict[str, Source] = {}
    for base in splits.bases(split):
        whole[base] = opener(argument, base, **extra) if name in KINDS else opener(base, **extra)
    source = views.select(whole, split, name=f"{spec} {split}")
    if len(source) == 0:
        raise types.InputError(f"A split must hold at least one example. {split!r} of {spec!r} holds none.")
    return source if labels is None else views.balanced(source, labels, seed=labels_seed)


def missing(specs: Iterable[str | Mapping[str, Any]]) -> list[str]:
    """Every named data set that is not on this machine, each with the command that gets it. No network is touched.

    A spec is a source's name or `{"source": name, "split": ..., "data_dir": ..., ...}`.
    """
    problems: dict[str, None] = {}
    for spec in specs:
        section = {"source": spec} if isinstance(spec, str) else dict(spec)
        name, argument = _parse(section["source"])
        check = getattr(importlib.import_module(_table()[name].partition(":")[0]), "missing", None)
        if check is None:
            continue
        split = section.get("split", "train")
        problem = check(argument, splits.bases(split), data_dir=section.get("data_dir"))
        if problem:
            problems[problem] = None
    return list(problems)


def listing() -> str:
    """One line a kind of source: its name and what it is; below `tfds:`, the label functions."""
    lines = []
    for name, opener in _table().items():
        documentation = importlib.import_module(opener.partition(":")[0]).__doc__ or ""
        form = {"tfds": "tfds:NAME", "folder": "folder:PATH", "private": "private:NAME"}.get(name, name)
        lines.append(f"{form:12} {documentation.strip().splitlines()[0]}")
        if name == "tfds":
            lines += [
                f"{'':12} label_function={function} of tfds:{row.data_set}, {len(row.class_names)} classes"
                for function, row in vtab_labels.LABELS.items()
            ]
    return "\n".join(lines)


def _table() -> dict[str, str]:
    return {**EMBEDDED, **KINDS}


def _parse(spec: str) -> tuple[str, str]:
    name, colon, argument = spec.partition(":")
    if name not in _table() or bool(colon) != (name in KINDS) or (colon and not argument):
        kinds = [*EMBEDDED, *(f"{kind}:{'PATH' if kind == 'folder' else 'NAME'}" for kind in KINDS)]
        hint = paths.did_you_mean(name, _table()) if name not in _table() else ""
        raise types.InputError(f"A source is one of {', '.join(kinds)}. Not: {spec!r}.{hint}")
    return name, argument


def _opener(name: str) -> Callable[..., Source]:
    module, _, function = _table()[name].partition(":")
    return getattr(importlib.import_module(module), function)


def _arguments(opener: Callable[..., Source], name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The keywords the opener takes, checked. `data_dir` is everybody's keyword, and ignored where it says nothing."""
    known = inspect.signature(opener).parameters
    if "data_dir" not in known or given["data_dir"] is None:
        given = {key: value for key, value in given.items() if key != "data_dir"}
    takes = list(known)[2 if name in KINDS else 1 :]
    for key in given:
        if key not in takes:
            raise types.InputError(
                f"The source {name!r} does not take {key!r}.{paths.did_you_mean(key, takes)}"
                f" It takes: {', '.join([*takes, 'labels', 'labels_seed'])}."
            )
    return given
