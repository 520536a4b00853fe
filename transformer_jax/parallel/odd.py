"""Which of several processes is not like the others, in words."""

from collections.abc import Mapping, Sequence
from typing import Any


def facts(told: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> str | None:
    """What the processes hold different values of, and who is odd; `None` when they agree. One mapping a process.

    The odd ones are those outside the majority; without a majority every process is named with its value.
    """
    names = list(dict.fromkeys(name for mapping in told for name in mapping))
    found = [f"{name}: {difference}" for name in names if (difference := _difference(name, told, hosts))]
    if not found:
        return None
    return (
        f"The {len(told)} processes of a run must agree before the first step, and do not. {'; '.join(found)}."
        " Start all of them with the same command, code, data and run directory."
    )


def _difference(name: str, told: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> str | None:
    holders: dict[str, list[int]] = {}
    for index, mapping in enumerate(told):
        holders.setdefault(_shown(mapping, name), []).append(index)
    if len(holders) == 1:
        return None
    value, most = max(holders.items(), key=lambda item: len(item[1]))
    if 2 * len(most) <= len(told):
        return ", ".join(f"{_named(who, hosts)} {_verb(who)} {held}" for held, who in holders.items())
    odd = (f"{_named(who, hosts)} {_verb(who)} {held}" for held, who in holders.items() if held != value)
    return f"{', '.join(odd)}, the other {len(most)} have {value}"


def _shown(mapping: Mapping[str, Any], name: str) -> str:
    if name not in mapping:
        return "none"
    text = repr(mapping[name])
    return text if len(text) <= 100 else f"{text[:60]}...{text[-37:]}"


def _verb(who: Sequence[int]) -> str:
    return "has" if len(who) == 1 else "have"


def _named(who: Sequence[int], hosts: Sequence[str]) -> str:
    """`process 3 (gpu07)`; of many only the first few."""
    shown = [f"{index} ({hosts[index]})" for index in who[:4]]
    more = [f"{len(who) - 4} more"] if len(who) > 4 else []
    *first, last = [*shown, *more]
    listing = f"{', '.join(first)} and {last}" if first else last
    return f"process{'es' if len(who) > 1 else ''} {listing}"
