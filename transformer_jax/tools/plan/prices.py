"""What an experiment costs, by prices of your own: they differ by region, contract and day, so this project has none.

A file in TOML or JSON: what a chip costs an hour (a chip, not a device: two devices of v2, v3 and 7x are one chip).

    currency = "EUR"
    [chip_hour]
    v3 = 1.10
    v5e = 0.55
    H100 = 2.20
"""

import dataclasses
import json
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from transformer_jax import types
from transformer_jax.tools.plan import chips
from transformer_jax.tools.plan import topology as topologies

EXAMPLE = 'currency = "EUR" and a table [chip_hour] with v5e = PRICE, H100 = PRICE and so on'


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices of an hour of one chip, by the chip's name in a topology."""

    chip_hour: Mapping[str, float]
    currency: str
    source: str

    def cost(self, where: topologies.Topology, seconds: float) -> float:
        """What all chips of `where` cost for so long. `InputError` when the file has no price for them."""
        if where.chip.name not in self.chip_hour:
            raise types.InputError(
                f"The cost needs a price: {self.source} has none for {where.chip.name}, only for"
                f" {', '.join(sorted(self.chip_hour)) or 'nothing'}. Add it under chip_hour."
            )
        return self.chip_hour[where.chip.name] * where.chip_count * seconds / 3600


def load(path: str) -> Prices:
    """The prices of a file. `InputError` for one that cannot be read, an unknown chip or a price that is none."""
    content = _content(path)
    unknown = sorted(set(content) - {"chip_hour", "currency"})
    table = content.get("chip_hour")
    if unknown or not isinstance(table, Mapping):
        wrong = f"it has {', '.join(map(repr, unknown))}" if unknown else "it has no table chip_hour"
        raise types.InputError(f"A file of prices must have {EXAMPLE}: {path}: {wrong}.")
    currency = content.get("currency", "")
    if not isinstance(currency, str):
        raise types.InputError(f"The currency must be a word: {path}: it is {currency!r}.")
    return Prices({_name(chip, path): _price(chip, price, path) for chip, price in table.items()}, currency, path)


def _content(path: str) -> dict[str, Any]:
    try:
        text = pathlib.Path(path).expanduser().read_text()
        content = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise types.InputError(f"--prices must be a file that can be read: {path}: {error.strerror}.") from None
    except ValueError as error:  # both decoders' errors are one
        kind = "TOML" if path.endswith(".toml") else "JSON (or name it .toml)"
        raise types.InputError(f"A file of prices must be {kind}: {path}: {error}.") from None
    if not isinstance(content, dict):
        raise types.InputError(f"A file of prices must have {EXAMPLE}: {path}: it is a {type(content).__name__}.")
    return content


def _name(chip: str, path: str) -> str:
    try:
        return chips.find(chip).name
    except types.InputError as error:
        raise types.InputError(f"{path}, chip_hour: {error}") from None


def _price(chip: str, price: Any, path: str) -> float:
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
        raise types.InputError(f"A price must be a number that is not negative: {path}: {chip} costs {price!r}.")
    return float(price)
