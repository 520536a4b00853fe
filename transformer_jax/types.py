"""Names for the values that travel between rooms, and the one error a user is meant to read."""

from collections.abc import Mapping
from typing import Any

FlatTree = dict[str, Any]
"""`{"blocks/0/mlp/up/kernel": leaf}`: a tree as plain parameter paths (`paths.flatten`)."""

Batch = Mapping[str, Any]
"""One batch: arrays whose leading axis is `batch`, by name (`image`, `label`, `mask`)."""

Metrics = dict[str, Any]
"""Scalars by name."""


class InputError(ValueError):
    """Bad input from the user. The message names the rule, the value and the remedy.

    The command line prints it without a traceback and exits 2.
    """
