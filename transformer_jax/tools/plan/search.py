"""What fits, and what is cheapest: the same experiment under other remat policies, meshes and batches.

Every try is a real compile, so there are at most `LIMIT` of them. First the least recomputation that fits,
data-parallel; where not even full recomputation does, or where cutting the state lets the step recompute less, `fsdp`
over every axis size that divides, chosen by what the compiled step sends. Then the batch is doubled
for as long as it fits.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from transformer_jax import types
from transformer_jax.tools.plan import compiling, estimate, report
from transformer_jax.tools.plan import topology as topologies

LIMIT = 12
REMAT = (None, "dots", "dots_no_batch", "full")
"""From the least recomputation to the most."""
LANES, SUBLANES = 128, 8
"""The tile in which a TPU keeps the last two axes of an array."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a try changes in the experiment. `fsdp` of 1 is data-parallel."""

    remat: str | None
    fsdp: int
    batch_size: int

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The experiment so changed."""
        cut = (
            dict(rules="fsdp", mesh={"data": -1, "fsdp": self.fsdp}) if self.fsdp > 1 else dict(rules="data", mesh=None)
        )
        return dict(
            settings,
            model=dict(settings["model"], remat=self.remat),
            data=dict(settings["data"], batch_size=self.batch_size),
            parallel=dict(settings["parallel"], **cut),
        )


@dataclasses.dataclass(frozen=True)
class Try:
    """A choice and what its compile says; no estimate where it does not fit."""

    choice: Choice
    compiled: Any
    timed: estimate.Estimate | None

    @property
    def pace(self) -> float:
        """Examples a second."""
        return self.choice.batch_size / self.timed.step_seconds if self.timed else 0.0


Attempt = Callable[[Choice], Try]


def run(
    settings: Mapping[str, Any],
    where: topologies.Topology,
    *,
    batch_size: int | None = None,
    adjust: report.Adjust | None = None,
    prices: Any = None,
) -> dict[str, Any]:
    """The plan of the cheapest choice (`report.KEYS`), with `search` (every try), `largest_batch`, `warnings`."""
    size = batch_size or settings["data"]["batch_size"]
    estimate.length(settings, size)  # before anything is compiled: it may be unknown

    def attempt(choice: Choice) -> Try:
        compiled = compiling.compile_step(choice.settings(settings), where)
        timed = estimate.of(compiled) if compiled.fits else None
        return Try(choice, compiled, adjust(timed, compiled) if timed and adjust else timed)

    tries = look(attempt, len(where.devices), size)
    fitting = [one for one in tries if one.timed]
    if not fitting:
        raise types.InputError(
            f"Nothing fits {where.name}: {len(tries)} compiles, down to full recomputation and"
            f" {_mesh(tries[-1].choice)}. Take more devices, a smaller batch or a smaller model.\n" + table(tries)
        )
    best = max((one for one in fitting if one.choice.batch_size == size), key=lambda one: one.pace, default=fitting[-1])
    steps = estimate.length(best.choice.settings(settings), best.choice.batch_size)
    found = report.make(best.compiled, steps, adjust=adjust, prices=prices)
    found["search"] = [row(one) for one in tries]
    found["largest_batch"] = max(one.choice.batch_size for one in fitting)
    found["warnings"] = [*token_warnings(best.compiled), *shard_warnings(best.compiled)]
    lines = [table(tries), f"Cheapest at batch {size:,}: {describe(best.choice)}; largest batch that fits:"]
    lines[-1] += f" {found['largest_batch']:,}."
    found["text"] = "\n".join(lines + [f"Note: {one}" for one in found["warnings"]])
    return found


def look(attempt: Attempt, devices: int, batch_size: int, limit: int = LIMIT) -> list[Try]:
    """Every try, in the order they were made; never more than `limit`."""
    tries: list[Try] = []

    def go(choice: Choice) -> Try | None:
        seen = next((one for one in tries if one.choice == choice), None)
        if seen is None and len(tries) < limit:
            seen = attempt(choice)
            tries.append(seen)
        return seen

    def first_fit(fsdp: int, policies: Sequence[str | None] = REMAT) -> Try | None:
        found = (go(Choice(remat, fsdp, batch_size)) for remat in policies)
        return next((one for one in found if one and one.timed), None)

    plain = first_fit(1)
    if plain is None or plain.choice.remat is not None:
        less = REMAT[: REMAT.index(plain.choice.remat)] if plain else REMAT[::-1]
        for fsdp in axis_sizes(devices):
            go(Choice(plain.choice.remat if plain else "full", fsdp, batch_size))
        cut = max((one for one in tries if one.choice.fsdp > 1), key=lambda one: one.pace, default=None)
        if cut is not None and cut.timed:
            first_fit(cut.choice.fsdp, less)
    best = max((one for one in tries if one.timed), key=lambda one: one.pace, default=None)
    while best is not None and best.timed:
        best = go(dataclasses.replace(best.choice, batch_size=2 * best.choice.batch_size))
    return tries


def axis_sizes(devices: int) -> list[int]:
    """Sizes of an fsdp axis worth a compile: 16, 8, all devices, 32; of those that divide."""
    return list(dict.fromkeys(size for size in (16, 8, devices, 32) if 1 < size <= devices and devices % size == 0))


def token_warnings(compiled: Any) -> Iterator[str]:
    """What one class token costs where it begins another tile (257 tokens against 256)."""
    config = compiled.program.model.config
    prefix, grid = getattr(config, "prefix", 0), getattr(config, "grid", None)
    if not prefix or grid is None:
        return
    length = math.prod(grid)
    with_it, without = (-(-count // LANES) * LANES for count in (length + prefix, length))
    if with_it > without:
        yield (
            f"{length + prefix} tokens take {with_it} places of a TPU's tiles, {length} would take {without}: the class"
            " token makes attention dearer (H/14 on v5e: 286 ms a step against 187, compiler estimate). model.pool=gap"
            " or map needs none."
        )


def shard_warnings(compiled: Any) -> Iterator[str]:
    """Parameters whose parts on a device fill their tiles badly."""
    program = compiled.program
    named, _ = jax.tree_util.tree_flatten_with_path(program.abstract.params)
    bad = {}
    for path, leaf in named:
        part = leaf.sharding.shard_shape(leaf.shape)
        for axis, (whole, here) in enumerate(zip(leaf.shape, part, strict=True)):
            unit = LANES if axis == len(part) - 1 else SUBLANES if axis == len(part) - 2 else 1
            if here < whole and here % unit:
                bad[jax.tree_util.keystr(path, simple=True, separator="/")] = (whole, here, unit)
    if bad:
        name, (whole, here, unit) = next(iter(bad.items()))
        yield (
            f"{len(bad)} parameters are cut into parts that no tile fits, {name} from {whole} to {here} (multiples of"
            f" {unit} fit): their gradients may be all-reduced whole. Another fsdp axis avoids that."
        )


def row(one: Try) -> dict[str, Any]:
    """A try for machines."""
    sent = sum(part.bytes for part in one.timed.collectives) if one.timed else None
    return {
        **dataclasses.asdict(one.choice),
        "fits": one.timed is not None,
        "peak_bytes": one.compiled.needed_bytes,
        "step_seconds": one.timed.step_seconds if one.timed else None,
        "collective_bytes": sent,
        "collective_seconds": one.timed.communication if one.timed else None,
        "images_per_second": one.pace or None,
    }


def table(tries: Sequence[Try]) -> str:
    """All tries as text."""
    lines = [f"{'remat':14} {'mesh':10} {'batch':>7} {'peak GiB':>9} {'step ms':>9} {'sent GiB':>9} {'images/s':>9}"]
    for one in tries:
        said, choice = row(one), one.choice
        head = (
            f"{choice.remat or 'none':14} {_mesh(choice):10} {choice.batch_size:7,} {said['peak_bytes'] / 2**30:9.2f}"
        )
        if not said["fits"]:
            lines.append(f"{head}  does not fit")
            continue
        numbers = 1e3 * said["step_seconds"], said["collective_bytes"] / 2**30, said["images_per_second"]
        lines.append(head + " {:9,.1f} {:9.2f} {:9,.0f}".format(*numbers))
    return "\n".join(lines)


def describe(choice: Choice) -> str:
    """A choice as the overrides that make it."""
    overrides = [f"--config.model.remat={choice.remat}"]
    if choice.fsdp > 1:
        overrides += ["--config.parallel.rules=fsdp", f"--config.parallel.mesh.fsdp={choice.fsdp}"]
    return " ".join(overrides)


def _mesh(choice: Choice) -> str:
    return f"fsdp={choice.fsdp}" if choice.fsdp > 1 else "data"
