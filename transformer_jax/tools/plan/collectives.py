"""What devices say to each other in a step: kinds, mesh axes and bytes, read from the optimised program."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transformer_jax.tools.plan import program_text

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_SCATTER = "all-reduce-scatter"
"""How the TPU compiler names a fusion that is a reduce-scatter, and holds an all-reduce."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """All communication of one kind over the same axes in a step."""

    kind: str
    axes: str
    """Axes of the mesh, `data+fsdp`; `?` where the devices that talk are not along any."""
    devices: int
    """That talk to each other."""
    count: int
    """Times a step does it."""
    bytes: int
    """Of the whole arrays: what is gathered, reduced or scattered."""
    sent: int
    """Bytes every device sends, by the algorithm of a ring."""
    across: bool = False
    """Whether it goes from one slice to another, over the network."""


def summary(runs: Sequence[program_text.Run], mesh: Mapping[str, int], slices: Sequence[int] = ()) -> list[Collective]:
    """The communication of a step on a mesh of these sizes, most bytes first; `slices` says where each device lies.

    An asynchronous collective is spread over several fusions (its start, its end, what is computed meanwhile): it
    counts once, by its channel. Others may share a channel and be distinct. Between slices the compiler sends what one
    slice has reduced already.
    """
    each: dict[tuple[str, str], Collective] = {}
    for number, run in enumerate(runs):
        found = _between_slices(run, mesh, slices) or _one(run, mesh, slices)
        if found is None:
            continue
        channel = re.search(r"channel_id=(\d+)", run.instruction.rest)
        spread = run.fused and not run.aside and channel and not run.computation.startswith(_SCATTER)
        key = (found.kind, channel[1] if spread else f"line {number}")
        if key not in each or found.bytes > each[key].bytes:
            each[key] = found
    totals: dict[tuple[Any, ...], list[Collective]] = {}
    for one in each.values():
        totals.setdefault((one.kind, one.axes, one.devices, one.across), []).append(one)
    joined = [
        dataclasses.replace(
            parts[0],
            count=sum(part.count for part in parts),
            bytes=sum(part.bytes for part in parts),
            sent=sum(part.sent for part in parts),
        )
        for parts in totals.values()
    ]
    return sorted(joined, key=lambda one: -one.bytes)


def _one(run: program_text.Run, mesh: Mapping[str, int], slices: Sequence[int]) -> Collective | None:
    """An instruction that communicates, as often as it runs."""
    made = run.instruction
    kind = made.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    axes, group, devices = groups(made.rest, mesh)
    if devices == 1:
        return None
    size = sum(program_text.arrays(_results(made)))
    if kind == "reduce-scatter":
        size *= devices
    elif kind == "all-reduce" and run.computation.startswith(_SCATTER):
        kind = "reduce-scatter"
    size *= run.times
    across = len({slices[device] for device in group}) > 1 if slices else False
    return Collective(kind, axes, devices, run.times, size, _sent(kind, size, devices), across)


def _results(made: program_text.Instruction) -> str:
    """The type of what a collective gives; the start of an asynchronous one has its operands before that.

    `((operands), (results))`, `((operand), result)` or `(operand, result, ...)`; only an all-reduce whose operands are
    not in parentheses has results alone, as they are what it reads.
    """
    parts = program_text.elements(made.shape)
    started = made.opcode.endswith("-start") and len(parts) > 1
    if started and (parts[0].startswith("(") or not made.opcode.startswith("all-reduce")):
        return parts[1]
    return made.shape


def _between_slices(run: program_text.Run, mesh: Mapping[str, int], slices: Sequence[int]) -> Collective | None:
    """What goes over the network, handed to the host by `send`."""
    made = run.instruction
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', made.rest)
    if made.opcode != "send" or kind is None or not slices:
        return None
    places = np.asarray(slices).reshape(tuple(mesh.values()))
    apart = {axis for i, axis in enumerate(mesh) if mesh[axis] > 1 and np.any(np.diff(places, axis=i))}
    size = max(program_text.arrays(made.shape), default=0) * run.times
    name = kind[1].lower().replace("_", "-")
    return Collective(name, _name(apart, mesh), len(set(slices)), run.times, size, size, across=True)


def _sent(kind: str, size: int, devices: int) -> int:
    if kind == "collective-permute":
        return size
    return round(size * (2 if kind == "all-reduce" else 1) * (devices - 1) / devices)


def groups(rest: str, mesh: Mapping[str, int]) -> tuple[str, list[int], int]:
    """Which axes of the mesh the devices of a group lie along, the devices of one group, and how many one has."""
    pairs = re.search(r"source_target_pairs=\{(\{[\d,{} ]*\})\}", rest)
    if pairs:
        numbers = [tuple(map(int, pair)) for pair in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
        moved = {axis for pair in numbers for axis in _varying(pair, mesh)}
        group = [device for pair in numbers for device in pair]
        return _name(moved, mesh), group, math.prod(mesh[axis] for axis in moved)
    group = _group(rest, mesh)
    moved = _varying(group, mesh)
    exact = math.prod(mesh[axis] for axis in moved) == len(group)
    return _name(moved, mesh) if exact else "?", group, len(group)


def _name(axes: set[str], mesh: Mapping[str, int]) -> str:
    return "+".join(axis for axis in mesh if axis in axes)


def _varying(group: Sequence[int], mesh: Mapping[str, int]) -> set[str]:
    """The axes along which these devices (numbered along the mesh) differ."""
    places = np.unravel_index(np.asarray(group), tuple(mesh.values()))
    return {axis for axis, place in zip(mesh, places, strict=True) if len(set(place.tolist())) > 1}


def _group(rest: str, mesh: Mapping[str, int]) -> list[int]:
    """The first group of devices, of the forms a program writes them in; everybody where it names none."""
    everybody = list(range(math.prod(mesh.values())))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return [int(number) for number in listed[1].split(",")]
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
    if counted:
        ids = np.arange(int(counted[1]) * int(counted[2])).reshape([int(size) for size in counted[3].split(",")])
        turned = ids.transpose([int(axis) for axis in counted[4].split(",")]) if counted[4] else ids
        return turned.reshape(int(counted[1]), int(counted[2]))[0].tolist()
    named = re.search(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}", rest)
    if named:
        return _named_group(named[1], named[2], named[3])
    return everybody


def _named_group(sizes: str, order: str, along: str) -> list[int]:
    """Of `mesh['a'=2,'b'=8] {'b'}`; an axis may be cut, `'b':(2)4` is 4 long after 2, and devices may be reordered."""
    shape: list[int] = []
    names: list[tuple[str, int]] = []  # an axis, and how much of it lies before this part
    parts = {}
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", along):
        parts.setdefault(name, []).append((int(before or 1), int(size or 0)))
    taken = []
    for name, size in re.findall(r"'([^']*)'=(\d+)", sizes):
        edges = sorted({1, int(size), *(edge for b, s in parts.get(name, []) for edge in (b, b * (s or int(size))))})
        for low, high in zip(edges, edges[1:], strict=False) if int(size) > 1 else [(1, 1)]:
            names.append((name, low))
            shape.append(high // low)
            inside = any(b <= low and high <= b * (s or int(size)) for b, s in parts.get(name, []))
            taken.append(inside)
    ids = np.arange(math.prod(shape))
    turned = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", order)
    if turned:
        ids = ids.reshape([int(size) for size in turned[1].split(",")])
        ids = ids.transpose([int(axis) for axis in turned[2].split(",")]) if turned[2] else ids
    grid = ids.reshape(shape)
    return grid[tuple(slice(None) if inside else 0 for inside in taken)].reshape(-1).tolist()
