"""Images that are not public, as a recipe names them: enough to plan with, not to train on.

`private:JFT-300M` stands where a recipe's images are when nobody outside can have them. Nothing is ever read from it.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from transformer_jax import types


def open(argument: str, split: str, *, data_dir: str | None = None, **_: Any) -> NoReturn:
    """There is nothing to open: an `InputError` says so."""
    raise types.InputError(missing(argument, [split]))


def missing(name: str, bases: Sequence[str], *, data_dir: str | None = None) -> str:
    """What to do about it."""
    return f"{name} is not public: name images of your own, source=tfds:NAME or folder:PATH."
