"""An optimised HLO program, read from its text: how often everything runs, estimated cycles, collectives, large arrays.

The compiler's own cost analysis counts the body of a loop once, so nothing of it is used. A TPU program carries the
cycles its compiler expects of most operations, one by one; loops carry no count of their turns, which is read from the
number their condition compares with. Pallas kernels, asynchronous copies and collectives have no cycles.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COMPUTATION = re.compile(r"\b(condition|body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    """Type as text: an array's, or of a tuple in parentheses."""
    opcode: str
    rest: str
    """Operands and attributes as text, after the opening parenthesis."""
    root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest[: closing(self.rest)])

    def called(self, role: str) -> str | None:
        return next((name for word, name in _COMPUTATION.findall(self.rest) if word == role), None)

    @property
    def cycles(self) -> int:
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else 0


Computations = Mapping[str, Sequence[Instruction]]


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction, where it stands and how often a step runs it."""

    instruction: Instruction
    computation: str
    times: int
    fused: bool
    """Part of a larger operation, which has the cycles."""
    aside: bool = False
    """On another core (7x sends from its sparse cores): costs the program nothing."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array the program makes: its type, its bytes with the padding of its tiles, what made it."""

    shape: str
    bytes: int
    unpadded: int
    source: str


_START = Instruction("", "", "", "", False)


def parse(text: str) -> tuple[Computations, str]:
    """The computations of a program by name, and the name of the one that is run."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(_instruction(line))
    if not entry:
        raise ValueError("no ENTRY computation in the program's text")
    return computations, entry


def walk(computations: Computations, entry: str) -> tuple[list[Run], list[str]]:
    """Everything a step runs, and the loops whose number of turns is not in the program: they count as one."""
    unknown: list[str] = []
    return list(_walk(computations, Run(_START, entry, 1, False), unknown)), unknown


def cycles(runs: Sequence[Run]) -> int:
    """The compiler's estimate of a step, loops multiplied out."""
    return sum(run.times * run.instruction.cycles for run in runs if not (run.fused or run.aside))


def uncosted_kernels(runs: Sequence[Run]) -> int:
    """Hand-written kernels, of which the compiler estimates nothing, as often as they run."""
    return sum(run.times for run in runs if 'custom_call_target="tpu_custom_call"' in run.instruction.rest)


def largest(runs: Sequence[Run], count: int = 5) -> list[Array]:
    """The largest arrays in device memory that are neither arguments nor within another operation, one of a shape."""
    found: dict[str, Array] = {}
    for run in runs:
        made = run.instruction
        if run.fused or run.aside or made.opcode in ("parameter", "get-tuple-element", "bitcast", "tuple", "constant"):
            continue
        for one in _ARRAY.finditer(made.shape):
            if "S(1)" not in (one[4] or ""):  # memory space 1 is on the chip
                name = re.search(r'op_name="([^"]*)"', made.rest)
                array = Array(f"{one[1]}[{one[2]}]", *_bytes(one), name[1] if name else made.opcode)
                found.setdefault(array.shape, array)
    return sorted(found.values(), key=lambda array: -array.bytes)[:count]


def arrays(shape: str) -> list[int]:
    """Bytes of every array of a type, without the padding of tiles."""
    return [_bytes(one)[1] for one in _ARRAY.finditer(shape)]


def elements(shape: str) -> list[str]:
    """The types a tuple's type is made of, tuples within it whole; an array's alone."""
    if not shape.startswith("("):
        return [shape]
    found, start, depth = [], 1, 0
    for at, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            found.append(shape[start:at].strip())
            start = at + 1
            if depth == 0:
                break
    return [part for part in found if part]


def closing(text: str, start: int = 0) -> int:
    """Where the parenthesis closes inside which `text[start:]` begins."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    end = closing(right, 1) + 1 if right.startswith("(") else right.index(" ")
    opcode, _, rest = right[end:].strip().partition("(")
    root = left.startswith("ROOT ")
    return Instruction(left.removeprefix("ROOT ").lstrip("%"), right[:end], opcode, rest, root)


def _walk(computations: Computations, run: Run, unknown: list[str]) -> Iterator[Run]:
    """The instructions of `run.computation`, each as often as `run` says, and what they run."""
    for made in computations.get(run.computation, ()):
        here = dataclasses.replace(run, instruction=made)
        yield here
        if made.opcode == "while":
            turns = _turns(computations, run.computation, made)
            if turns is None:
                unknown.append(made.name)
            for role in ("condition", "body"):
                yield from _into(computations, here, made.called(role), unknown, times=run.times * (turns or 1))
        elif made.opcode == "conditional":
            branches = [list(_into(computations, here, branch, unknown)) for branch in _branches(made)]
            yield from max(branches, key=cycles, default=[])
        elif made.opcode == "fusion":
            yield from _into(computations, here, made.called("calls"), unknown, fused=True)
        elif made.opcode in ("call", "call-start", "async-start"):
            inner, aside = made.called("to_apply") or made.called("calls"), run.aside or made.opcode != "call"
            yield from _into(computations, here, inner, unknown, aside=aside)


def _into(computations: Computations, run: Run, name: str | None, unknown: list[str], **changes: Any) -> Iterator[Run]:
    return _walk(computations, dataclasses.replace(run, computation=name or "", **changes), unknown)


def _branches(made: Instruction) -> list[str]:
    listed = _BRANCHES.search(made.rest)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return [name for role in ("true_computation", "false_computation") if (name := made.called(role))]


def _turns(computations: Computations, where: str, loop: Instruction) -> int | None:
    """How often a loop runs that counts up to a constant; None for others."""
    known = _KNOWN_TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = {made.name: made for made in computations.get(loop.called("condition") or "", ())}
    root = next((made for made in condition.values() if made.root), None)
    if root is not None and root.opcode == "fusion":  # the comparison alone, fused
        inside = {made.name: made for made in computations.get(root.called("calls") or "", ())}
        parameters = {made.name: int(made.rest.split(")")[0]) for made in inside.values() if made.opcode == "parameter"}
        compare = next((made for made in inside.values() if made.root), None)
        if compare is None:
            return None
        names = [root.operands[parameters[name]] if name in parameters else name for name in compare.operands]
        condition |= {name: made for name, made in inside.items() if name not in parameters}
    else:
        compare, names = root, root.operands if root is not None else []
    if compare is None or compare.opcode != "compare" or "direction=LT" not in compare.rest or len(names) != 2:
        return None
    outside = {made.name: made for made in computations[where]}
    start, end = (_value(name, condition, outside, loop) for name in names)
    return None if start is None or end is None else max(end - start, 0)


def _value(
    name: str, inside: Mapping[str, Instruction], outside: Mapping[str, Instruction], loop: Instruction
) -> int | None:
    """A whole number a loop's condition reads: a constant there, or what the loop starts with."""
    made = inside.get(name)
    if made is not None and made.opcode == "get-tuple-element":
        index = re.search(r"index=(\d+)", made.rest)
        start = outside.get(loop.operands[0])
        if index is None or start is None or start.opcode != "tuple":
            return None
        made = outside.get(start.operands[int(index[1])])
    while made is not None and made.opcode in ("copy", "bitcast"):
        made = outside.get(made.operands[0]) or inside.get(made.operands[0])
    if made is None or made.opcode != "constant":
        return None
    number = re.match(r"(-?\d+)\)", made.rest)
    return int(number[1]) if number else None


def _bytes(one: re.Match[str]) -> tuple[int, int]:
    """Bytes of an array with and without the padding of its tiles of 8 x 128 (or what its layout says)."""
    digits = re.search(r"\d+", one[1])
    bits = _WIDTH.get(one[1], int(digits[0]) if digits else 0)
    sizes = [int(size.strip("<= ")) for size in one[2].split(",") if size.strip()]
    padded = list(sizes)
    tile = re.match(r"T\(([\d,]+)\)", one[4] or "")
    if tile and one[3]:
        minor_first = [int(axis) for axis in one[3].split(",")]
        for axis, unit in zip(minor_first, reversed([int(size) for size in tile[1].split(",")]), strict=False):
            padded[axis] = -(-padded[axis] // unit) * unit
    return math.prod(padded) * bits // 8, math.prod(sizes) * bits // 8
