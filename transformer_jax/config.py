"""Experiment files and overrides: loaded, checked against constructor signatures, compared.

A config section is the keyword arguments of one constructor, no more: the signature holds the defaults and the types,
so an unknown key or a wrong type is an error before anything is built, and a key nothing reads cannot exist.
"""

import ast
import collections.abc
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import traceback
import types as python_types
import typing
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from transformer_jax import paths, types

MISSING = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Field:
    """What a constructor says of one keyword: its type and its default (`MISSING` when it must be given)."""

    annotation: Any
    default: Any


def fields(constructor: Callable[..., Any], *, skip: Sequence[str] = ()) -> dict[str, Field]:
    """The keywords of a constructor, but for those in `skip`, which the caller fills in."""
    if dataclasses.is_dataclass(constructor):
        hints = typing.get_type_hints(constructor)
        return {
            f.name: Field(hints[f.name], _default(f)) for f in dataclasses.fields(constructor) if f.name not in skip
        }
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    parameters = inspect.signature(constructor).parameters.values()
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in skip]
    return {p.name: Field(hints.get(p.name, Any), p.default) for p in named}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def check(section: Any, known: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The section with its defaults filled in. `InputError` for an unknown, missing or wrongly typed key."""
    where = f"config.{where}" if where else "config"
    if not isinstance(section, Mapping | ml_collections.ConfigDict):
        raise types.InputError(f"{where} must be a section (a mapping of keywords), not {section!r}.")
    for key in section:
        if key not in known:
            raise types.InputError(
                f"{where}.{key} is not a keyword of this section.{paths.did_you_mean(key, known)}"
                f" It takes: {', '.join(known)}."
            )
    filled = {}
    for key, field in known.items():
        value = section.get(key, field.default)
        if value is MISSING:
            raise types.InputError(f"{where}.{key} must be given: {describe(field.annotation)}.")
        if key in section and not accepts(value, field.annotation):
            raise types.InputError(
                f"{where}.{key} must be {describe(field.annotation)}, not {value!r} ({type(value).__name__})."
            )
        filled[key] = value
    return filled


def accepts(value: Any, annotation: Any) -> bool:
    """If the value is of the annotated type: an int passes for a float, a list for a tuple, a bool for no number."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is MISSING:
        return True
    if origin in (typing.Union, python_types.UnionType):
        return any(accepts(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if isinstance(value, bool) or annotation is bool:
        return isinstance(value, bool) and annotation is bool
    if annotation is float:
        return isinstance(value, int | float)
    base = origin or annotation
    if base in (tuple, list, collections.abc.Sequence):
        return _accepts_sequence(value, base, arguments)
    if base in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(accepts(item, arguments[1]) for item in value.values() if arguments)
    return not isinstance(base, type) or isinstance(value, base)


def _accepts_sequence(value: Any, base: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple | list):
        return False
    if not arguments:
        return True
    if base is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(accepts, value, arguments))
    return all(accepts(item, arguments[0]) for item in value)


def describe(annotation: Any) -> str:
    """A type as a user would say it: `int or None`, `one of 'tok', 'gap'`, `a list of float`."""
    arguments = typing.get_args(annotation)
    base = typing.get_origin(annotation) or annotation
    if typing.get_origin(annotation) in (typing.Union, python_types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if typing.get_origin(annotation) is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if annotation is type(None) or annotation is None:
        return "None"
    if base is tuple and arguments and Ellipsis not in arguments:
        return f"({', '.join(map(describe, arguments))})"
    if base in (tuple, list, collections.abc.Sequence):
        return f"a list of {describe(arguments[0])}" if arguments else "a list"
    if base in (dict, collections.abc.Mapping):
        return "a section of keys and values"
    return "anything" if annotation is Any else getattr(base, "__name__", str(base))


def parse(text: str, annotation: Any, where: str) -> Any:
    """The value an override spells: a Python literal, `true`/`false`, or plain text where the type is a string."""
    if annotation is str:
        return text
    try:
        value = (
            {"true": True, "false": False}[text.lower()]
            if text.lower() in ("true", "false")
            else ast.literal_eval(text)
        )
    except (ValueError, SyntaxError):
        value = text
    if accepts(value, annotation):
        return tuple(value) if isinstance(value, list) else value
    if accepts(text, annotation):
        return text
    raise types.InputError(f"--config.{where}={text}: the value must be {describe(annotation)}.")


def override(config: ml_collections.ConfigDict, schema: Mapping[str, Field], assignments: Mapping[str, str]) -> None:
    """Set `{"optim.clip_norm": "0.5"}` in place, every value typed by the schema (dotted path to `Field`).

    A key inside a mapping-valued field (`parallel.mesh.fsdp`) takes the type of the value it replaces. Raises
    `InputError` with the nearest dotted paths for an unknown one.
    """
    for where, text in assignments.items():
        *parents, last = where.split(".")
        holders = [".".join(parents[:i]) for i in range(1, len(parents) + 1)]
        free = [h for h in holders if h in schema and not any(key.startswith(f"{h}.") for key in schema)]
        if where in schema:
            annotation = schema[where].annotation
        elif free and accepts({}, schema[free[0]].annotation):
            annotation = _type_of(config, where)
        else:
            raise types.InputError(f"--config.{where}: there is no such setting.{paths.did_you_mean(where, schema)}")
        node = config
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = ml_collections.ConfigDict()
            node = node[parent]
        with node.ignore_type():
            node[last] = parse(text, annotation, where)


def override_in_order(
    config: ml_collections.ConfigDict,
    schema: Callable[[Mapping[str, Any]], Mapping[str, Field]],
    assignments: Mapping[str, str],
) -> None:
    """`override` where the schema depends on the config: names choose constructors, so `name` and `kind` are set before
    the keywords of those constructors are known."""
    names = {where: text for where, text in assignments.items() if where.rsplit(".", 1)[-1] in ("name", "kind")}
    for part in (names, {where: text for where, text in assignments.items() if where not in names}):
        override(config, schema(config.to_dict()), part)


def _type_of(config: Any, where: str) -> Any:
    """The type of the value now at a dotted path, `Any` when there is none."""
    node: Any = config
    for key in where.split("."):
        if not hasattr(node, "keys") or key not in node:
            return Any
        node = node[key]
    return type(node) if node is not None else Any


def load(spec: str) -> ml_collections.ConfigDict:
    """What `get_config(arg, key=value)` of `experiments/X.py` returns, for `"experiments/X.py:arg,key=value"`."""
    name, _, text = spec.partition(":")
    get_config = getattr(module(name), "get_config", None)
    if get_config is None:
        raise types.InputError(f"An experiment file defines get_config(): {name!r} does not.")
    words = [word for word in text.split(",") if word]
    arguments = [word for word in words if "=" not in word]
    keywords = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        inspect.signature(get_config).bind(*arguments, **keywords)
    except TypeError as error:
        signature = inspect.signature(get_config)
        raise types.InputError(f"{spec!r} does not fit get_config{signature} of {name!r}: {error}.") from None
    with _blamed(name):
        return ml_collections.ConfigDict(get_config(*arguments, **keywords))


def module(path: str | Path) -> python_types.ModuleType:
    """An experiment file as a module, for the tables it holds."""
    file = Path(path).expanduser()
    if not file.is_file():
        near = paths.did_you_mean(str(path), map(str, Path("experiments").rglob("*.py")))
        raise types.InputError(f"--config must name an experiment file: {str(path)!r} does not exist.{near}")
    spec = importlib.util.spec_from_file_location(f"experiment_file_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise types.InputError(f"--config must name a Python file: {str(path)!r} is none.")
    loaded = importlib.util.module_from_spec(spec)
    with _blamed(path):
        spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def _blamed(path: str | Path) -> Generator[None, None, None]:
    """An error of an experiment file is told with the line of the file where it came up."""
    try:
        yield
    except types.InputError:
        raise
    except SyntaxError as error:
        raise types.InputError(f"{str(path)!r} is not Python: line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        file = str(Path(path).expanduser().absolute())
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" line {lines[-1]}" if lines else ""
        raise types.InputError(f"{str(path)!r}{where} raised {type(error).__name__}: {error}.") from error


def plain(value: Any) -> Any:
    """Config as plain dictionaries, lists and scalars: what JSON can hold."""
    if isinstance(value, ml_collections.ConfigDict):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `{"optim.clip_norm": 1.0}`; an empty mapping stays as a value."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        where = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping) and item:
            flat.update(dotted(item, where))
        else:
            flat[where] = item
    return flat


def text(config: Any) -> str:
    """The config as indented JSON, one setting a line."""
    return json.dumps(plain(config), indent=2)


def replaced(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a resolved config with `{"schedule.base": 0.01}` set. `InputError` for a setting it does not have."""
    copy: dict[str, Any] = dict(settings)
    for where, value in values.items():
        *parents, last = where.split(".")
        node = copy
        for parent in parents:
            node[parent] = dict(node[parent]) if isinstance(node.get(parent), Mapping) else {}
            node = node[parent]
        if last not in node:
            raise types.InputError(f"{where!r} is not a setting here.{paths.did_you_mean(where, dotted(settings))}")
        node[last] = value
    return copy


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`{"train.steps": (1000, 2000)}` for every setting that differs; a missing side is `None`."""
    before, after = dotted(plain(old)), dotted(plain(new))
    keys = sorted(set(before) | set(after))
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
