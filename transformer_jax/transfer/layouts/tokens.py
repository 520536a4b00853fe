"""The rows of a position table: layouts differ in which of the tokens outside the grid have one.

Ours has a row for the class and the distillation token and none for registers. Files are known by their number of rows:
`"grid"` has rows for patches only, `"own"` as ours, `"all"` for registers too.
"""

import math

import numpy as np

from transformer_jax.transfer.layouts import rules


def read(params: dict[str, np.ndarray], style: rules.Style, *, usual: str, patches: int | None = None) -> None:
    """Brings the table to our rows: a token without a row gets a zero row, the row of a register is added to it.

    `patches` is their number where a configuration tells it; else it is a square, else the table is the `usual` one.
    """
    if "position" not in params:
        return
    table, (own, registers) = params["position"], _counts(params)
    counts = {"own": own, "grid": 0, "all": own + registers}
    kinds = sorted(counts, key=lambda kind: kind != usual)
    left = {kind: table.shape[0] - counts[kind] for kind in kinds}
    fits = [kind for kind in kinds if left[kind] == patches] or [kind for kind in kinds if _square(left[kind])]
    kind = style["position_rows"] = (fits or [usual])[0]
    if kind == "grid":
        params["position"] = np.concatenate([np.zeros((own, table.shape[1]), table.dtype), table]) if own else table
    elif kind == "all" and registers:
        params["registers"] = _plus(params["registers"], table[own : own + registers])
        params["position"] = np.concatenate([table[:own], table[own + registers :]])


def write(params: dict[str, np.ndarray], style: rules.Style, *, usual: str) -> None:
    """The table as a layout wants it. Where it has no row for a token, the row is added to the token itself."""
    if "position" not in params:
        return
    table, (own, registers) = params["position"], _counts(params)
    kind = style.setdefault("position_rows", usual)
    if kind == "grid":
        for row, name in enumerate([name for name in ("cls", "dist") if name in params]):
            params[name] = _plus(params[name], table[row])
        params["position"] = table[own:]
    elif kind == "all":
        blank = np.zeros((registers, table.shape[1]), table.dtype)
        params["position"] = np.concatenate([table[:own], blank, table[own:]]) if registers else table


def _counts(params: dict[str, np.ndarray]) -> tuple[int, int]:
    return ("cls" in params) + ("dist" in params), params["registers"].shape[0] if "registers" in params else 0


def _plus(token: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The sum, and the very same array where there is nothing to add (-0 + 0 is another zero)."""
    return (token + rows).astype(token.dtype) if np.any(rows != 0) else token


def _square(rows: int) -> bool:
    return rows > 0 and math.isqrt(rows) ** 2 == rows
