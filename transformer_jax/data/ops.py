"""The op table and the language of preprocessing strings: `"decode | inception_crop(224) | flip_lr"`.

A string is op names, or calls with literal arguments, joined by `|`. It is parsed, never evaluated.
"""

import ast
import inspect
import types as python_types
import typing
from collections.abc import Sequence
from typing import Any

from transformer_jax import paths, types
from transformer_jax.data import augment, colour, field_ops, image_ops, operation, randaug

OPS: dict[str, type[operation.Op]] = {
    "decode": image_ops.Decode,
    "resize": image_ops.Resize,
    "resize_small": image_ops.ResizeSmall,
    "central_crop": image_ops.CentralCrop,
    "random_crop": image_ops.RandomCrop,
    "inception_crop": image_ops.InceptionCrop,
    "flip_lr": image_ops.FlipLR,
    "pad": image_ops.Pad,
    "shift": augment.Shift,
    "randaug": randaug.RandAug,
    "colour_jitter": colour.ColourJitter,
    "erase": augment.Erase,
    "random_affine": augment.RandomAffine,
    "jitter": augment.Jitter,
    "cutout": augment.Cutout,
    "value_range": field_ops.ValueRange,
    "normalize": field_ops.Normalize,
    "onehot": field_ops.OneHot,
    "multihot": field_ops.MultiHot,
    "keep": field_ops.Keep,
    "drop": field_ops.Drop,
    "copy": field_ops.Copy,
}


def parse(text: str | Sequence[operation.Op]) -> list[operation.Op]:
    """The ops of a preprocessing string; a sequence of ops is passed through."""
    if not isinstance(text, str):
        return list(text)
    if not text.strip():
        return []
    try:
        tree = ast.parse(" ".join(text.split("\n")).strip(), mode="eval").body
    except SyntaxError as error:
        raise types.InputError(
            f'Preprocessing is written "decode | resize(32) | flip_lr". Cannot read {text!r}: {error.msg}'
            f" at column {error.offset}."
        ) from None
    return [_op(node, text) for node in _stages(tree)]


def build(name: str, *args: Any, **kwargs: Any) -> operation.Op:
    """One op of the table, its arguments checked against its signature."""
    if name not in OPS:
        raise types.InputError(
            f"{name!r} is not a preprocessing op.{paths.did_you_mean(name, OPS)} The ops are: {', '.join(OPS)}."
        )
    parameters = inspect.signature(OPS[name])
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError as error:
        raise types.InputError(f"{_call(name, args, kwargs)}: {error}. Signature: {signature(name)}.") from None
    hints = typing.get_type_hints(OPS[name])
    for key, value in bound.arguments.items():
        hint = hints.get(key, Any)
        if not _accepts(value, hint):
            raise types.InputError(
                f"{_call(name, args, kwargs)}: {key} must be {_describe(hint)}, not {value!r}."
                f" Signature: {signature(name)}."
            )
    try:
        return OPS[name](*args, **kwargs)
    except types.InputError as error:
        raise types.InputError(f"{error} Signature: {signature(name)}.") from None


def signature(name: str) -> str:
    """`resize(height: int, width: int | None = None, method: str = 'bilinear')`, as errors and help show it."""
    parameters = inspect.signature(OPS[name]).parameters.values()
    return f"{name}({', '.join(str(p) for p in parameters if p.name != 'key')})"


def _stages(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_stages(node.left), *_stages(node.right)]
    return [node]


def _op(node: ast.expr, text: str) -> operation.Op:
    name = node.func if isinstance(node, ast.Call) else node
    if not isinstance(name, ast.Name):
        raise types.InputError(
            f"A preprocessing op is a name or a call, joined by |. Not: {ast.unparse(node)!r} in {text!r}."
        )
    if not isinstance(node, ast.Call):
        return build(name.id)
    try:
        args = [ast.literal_eval(argument) for argument in node.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    except ValueError:
        args, kwargs = [], None
    if kwargs is None or len(kwargs) < len(node.keywords):
        raise types.InputError(
            f"The arguments of an op are literals (numbers, strings, tuples). Not: {ast.unparse(node)}."
        )
    return build(name.id, *args, **kwargs)


def _accepts(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, python_types.UnionType):
        return any(_accepts(value, part) for part in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_accepts(part, arguments[0]) for part in value)
        fits = isinstance(value, tuple) and len(value) == len(arguments)
        return fits and all(_accepts(part, kind) for part, kind in zip(value, arguments, strict=True))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _describe(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _call(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"
