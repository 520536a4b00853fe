"""What became of every parameter when weights were taken over, as text a person reads before a long run."""

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Mapping

_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Report:
    """Every name of the model is in exactly one of `loaded`, `resized`, `reset`, `missing`; `unused` are names of the
    file. `resized` and `reset` say how and why."""

    source: str
    loaded: tuple[str, ...] = ()
    resized: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reset: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    cast: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """`{"bfloat16 -> float32": 150}`: arrays whose type was changed."""

    def text(self) -> str:
        """Some lines: where the weights come from, then the names by what became of them, layers folded."""
        total = len(self.loaded) + len(self.resized) + len(self.reset) + len(self.missing)
        lines = [f"Weights from {self.source}"]
        lines += _entry("loaded", f"{len(self.loaded)} of {total} arrays: {', '.join(fold(self.loaded))}")
        lines += [line for name, how in self.resized.items() for line in _entry("resized", f"{name}: {how}")]
        reasons: dict[str, list[str]] = {}
        for name, why in self.reset.items():
            reasons.setdefault(why, []).append(name)
        lines += [
            line for why, names in reasons.items() for line in _entry("reset", f"{', '.join(fold(names))}: {why}")
        ]
        lines += _entry(
            "missing", f"{', '.join(fold(self.missing))}: not in the file, fresh values" if self.missing else "none"
        )
        lines += _entry("unused", ", ".join(fold(self.unused)) or "none")
        lines += [line for how, count in self.cast.items() for line in _entry("cast", f"{count} arrays {how}")]
        return "\n".join(lines)


def fold(names: Iterable[str]) -> list[str]:
    """Names in one per family: `blocks/{0-11}/norm1/{bias,scale}`."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        index = re.search(r"\d+(?=/)", name)
        family = f"{name[: index.start()]}#{name[index.end() :]}" if index else name
        numbers.setdefault(family, []).extend([int(index[0])] if index else [])
    leaves: dict[tuple[str, str], list[str]] = {}
    for family, found in numbers.items():
        parent, _, leaf = family.rpartition("/")
        leaves.setdefault((parent, _ranges(found)), []).append(leaf)
    folded = []
    for (parent, indices), found in leaves.items():
        leaf = found[0] if len(found) == 1 else f"{{{','.join(sorted(found))}}}"
        folded.extend([f"{parent}/{leaf}".replace("#", indices)] if parent else found)
    return sorted(folded)


def _ranges(numbers: list[int]) -> str:
    """`{0-3,5}`, or the number itself when it is alone."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
    return text if len(numbers) == 1 else f"{{{text}}}"


def _entry(label: str, text: str) -> list[str]:
    first, rest = f"  {label:<8} ", " " * 11
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
