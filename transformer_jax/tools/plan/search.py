"""What fits, and what is cheapest: the same experiment under other remat policies, meshes and batches.

Every try is a real compile, so there are at most `LIMIT` of them. First data-parallel: without recomputation, with all
of it (which a scanned model may take faster), and what is between where only the latter fits. Where cutting the state
could spare recomputation or is needed, `fsdp` over every axis size that divides, chosen by what the compiled step
sends. A shallow scanned model is tried unrolled. Then the batch is doubled, with what needs least memory, for as long
as it fits; where nothing fits it is halved until something does.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformer_jax import types
from transformer_jax.tools.plan import compiling, estimate, page, report
from transformer_jax.tools.plan import topology as topologies

LIMIT = 12
BETWEEN = ("dots", "dots_no_batch")
"""Policies of recomputation between none and `full`, from the least."""
SHALLOW = 12
"""Layers up to which an unrolled model compiles in minutes; it can be a fifth faster than a scanned one."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a try changes in the experiment. `fsdp` of 1 is data-parallel."""

    remat: str | None
    fsdp: int
    batch_size: int
    unrolled: bool = False

    @property
    def parallel(self) -> dict[str, Any]:
        """How the step is spread; nothing else of the recipe's own way would fit this mesh."""
        mesh = {"data": -1, "fsdp": self.fsdp} if self.fsdp > 1 else None
        return dict(rules="fsdp" if self.fsdp > 1 else "data", mesh=mesh, across={}, strategy="jit")

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The experiment so changed."""
        unrolled = {"scan": False} if self.unrolled else {}
        return dict(
            settings,
            model=dict(settings["model"], remat=self.remat, **unrolled),
            data=dict(settings["data"], batch_size=self.batch_size),
            parallel=dict(settings["parallel"], **self.parallel),
        )


@dataclasses.dataclass(frozen=True)
class Try:
    """A choice and what its compile says; no estimate where it does not fit, nothing where it is refused."""

    choice: Choice
    compiled: Any
    timed: estimate.Estimate | None
    refused: str = ""
    """Why it cannot be placed at all."""

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
    """The plan of the cheapest choice (`report.KEYS`), and `text`: every try, the choice and its page."""
    size = batch_size or settings["data"]["batch_size"]
    estimate.length(settings, size)  # before anything is compiled: it may be unknown, and so may a price
    if prices is not None:
        prices.cost(where, 0.0)

    def attempt(choice: Choice) -> Try:
        try:
            compiled = compiling.compile_step(choice.settings(settings), where)
        except types.InputError as error:
            return Try(choice, None, None, str(error))
        timed = estimate.of(compiled) if compiled.fits else None
        return Try(choice, compiled, adjust(timed, compiled) if timed and adjust else timed)

    tries = look(attempt, len(where.devices), size)
    fitting = [one for one in tries if one.timed]
    if not fitting:
        raise types.InputError(_nothing(tries, where))
    best = max((one for one in fitting if one.choice.batch_size == size), key=lambda one: one.pace, default=fitting[-1])
    steps = estimate.length(best.choice.settings(settings), best.choice.batch_size)
    found = report.make(best.compiled, steps, adjust=adjust, prices=prices)
    found["search"] = [row(one) for one in tries]
    found["largest_batch"] = max(one.choice.batch_size for one in fitting)
    overrides = describe(best.choice, settings)
    found["overrides"] = overrides
    lines = [table(tries), *_said(tries, size), f"Cheapest at batch {best.choice.batch_size:,}: {' '.join(overrides)}"]
    own = {key: settings["parallel"].get(key) for key, value in best.choice.parallel.items()}
    dropped = {key: value for key, value in own.items() if value and value != best.choice.parallel[key]}
    if dropped:
        said = ", ".join(f"parallel.{key}={value!r}" for key, value in dropped.items())
        lines.append(f"The search chooses how the step is spread: the recipe's {said} was not kept.")
    found["text"] = "\n".join([*lines, "", page.text(found)])
    return found


def look(attempt: Attempt, devices: int, batch_size: int, limit: int = LIMIT) -> list[Try]:
    """Every try, in the order they were made; never more than `limit` compiles."""
    tries: list[Try] = []

    def go(remat: str | None, fsdp: int, size: int = batch_size, **more: bool) -> Try | None:
        choice = Choice(remat, fsdp, size, **more)
        seen = next((one for one in tries if one.choice == choice), None)
        if seen is None and sum(not one.refused for one in tries) < limit:
            seen = attempt(choice)
            tries.append(seen)
        return seen

    plain = [go(None, 1), go("full", 1)]
    if not fits(plain[0]):
        if fits(plain[1]):
            first_that_fits(lambda remat: go(remat, 1), BETWEEN)
        remat = (fastest(tries) or Try(Choice("full", 1, batch_size), None, None)).choice.remat
        cut = fastest(go(remat, fsdp) for fsdp in axis_sizes(devices))
        if cut is not None:
            first_that_fits(lambda remat: go(remat, cut.choice.fsdp), (None, BETWEEN[0]))
    best = fastest(tries)
    if best is not None and shallow(best.compiled) and len(tries) <= limit - 4:  # some are left for the batch
        go(best.choice.remat, best.choice.fsdp, unrolled=True)
    sizes(go, tries)
    return tries


def sizes(go: Callable[..., Try | None], tries: Sequence[Try]) -> None:
    """Double the batch, with the choice that needs least memory, until it does not fit; halve it where nothing does."""
    some = [one for one in tries if fits(one)] or [one for one in tries if not one.refused]
    one = min(some, key=lambda one: one.compiled.needed_bytes, default=None)
    grow = fits(one)
    while one is not None and not one.refused and fits(one) is grow:
        size = one.choice.batch_size * 2 if grow else one.choice.batch_size // 2
        one = go(one.choice.remat, one.choice.fsdp, size, unrolled=one.choice.unrolled) if size else None


def fits(one: Try | None) -> bool:
    return one is not None and one.timed is not None


def fastest(tries: Any) -> Try | None:
    """Of those that fit."""
    return max((one for one in tries if one is not None and one.timed), key=lambda one: one.pace, default=None)


def first_that_fits(go: Callable[[str | None], Try | None], policies: Sequence[str | None]) -> Try | None:
    return next((one for one in map(go, policies) if fits(one)), None)


def axis_sizes(devices: int) -> list[int]:
    """Sizes of an fsdp axis worth a compile: 16, 8, all devices, 32; of those that divide."""
    return list(dict.fromkeys(size for size in (16, 8, devices, 32) if 1 < size <= devices and devices % size == 0))


def shallow(compiled: Any) -> bool:
    """Whether a model is scanned that could be compiled layer by layer in minutes; TPUs alone tell the difference."""
    config = getattr(getattr(getattr(compiled, "program", None), "model", None), "config", None)
    depth = getattr(getattr(config, "size", None), "depth", None)
    return bool(depth and getattr(config, "scan", False)) and depth <= SHALLOW and compiled.hardware.platform == "tpu"


def row(one: Try) -> dict[str, Any]:
    """A try for machines."""
    sent = sum(part.bytes for part in one.timed.collectives) if one.timed else None
    return {
        **dataclasses.asdict(one.choice),
        "fits": one.timed is not None,
        "refused": one.refused or None,
        "peak_bytes": None if one.refused else one.compiled.needed_bytes,
        "step_seconds": one.timed.step_seconds if one.timed else None,
        "collective_bytes": sent,
        "collective_seconds": one.timed.communication if one.timed else None,
        "images_per_second": one.pace or None,
    }


def table(tries: Sequence[Try]) -> str:
    """All tries as text."""
    lines = [f"{'remat':22} {'mesh':10} {'batch':>7} {'peak GiB':>9} {'step ms':>9} {'sent GiB':>9} {'images/s':>9}"]
    for one in tries:
        said, choice = row(one), one.choice
        name = (choice.remat or "none") + (", unrolled" if choice.unrolled else "")
        head = f"{name:22} {_mesh(choice):10} {choice.batch_size:7,}"
        if one.refused:
            lines.append(f"{head}  refused: {one.refused}")
            continue
        head += f" {said['peak_bytes'] / 2**30:9.2f}"
        if not said["fits"]:
            lines.append(f"{head}  does not fit")
            continue
        numbers = 1e3 * said["step_seconds"], said["collective_bytes"] / 2**30, said["images_per_second"]
        lines.append(head + " {:9,.1f} {:9.2f} {:9,.0f}".format(*numbers))
    return "\n".join(lines)


def describe(choice: Choice, settings: Mapping[str, Any]) -> list[str]:
    """The overrides that make this choice of the experiment."""
    wanted: dict[str, Any] = {"model.remat": choice.remat, "data.batch_size": choice.batch_size}
    if choice.unrolled:
        wanted["model.scan"] = False
    own, ours = settings["parallel"], choice.parallel
    for key in ("rules", "strategy", "across"):
        if own.get(key) and own[key] != ours[key]:
            wanted[f"parallel.{key}"] = ours[key]
    mesh = ours["mesh"]
    if mesh is None and own.get("mesh") is not None:
        wanted["parallel.mesh"] = None
    elif mesh is not None:
        others = {axis: 1 for axis in own.get("mesh") or {} if axis not in mesh}
        wanted |= {f"parallel.mesh.{axis}": size for axis, size in {**others, **mesh}.items()}
    return [f"--config.{key}={value}" for key, value in wanted.items()]


def _said(tries: Sequence[Try], size: int) -> list[str]:
    """How far the search came."""
    compiles = sum(not one.refused for one in tries)
    largest = max(one.choice.batch_size for one in tries if one.timed)
    beyond = [one for one in tries if one.choice.batch_size > largest and not one.timed]
    line = f"Largest batch that was tried and fits: {largest:,}"
    if beyond:
        line += f"; {beyond[-1].choice.batch_size:,} {'is refused' if beyond[-1].refused else 'does not'}"
    stopped = f"; stopped after {compiles} compiles" if compiles >= LIMIT else ""
    return [f"{line}{stopped}.", *([f"Nothing fits at batch {size:,}."] if largest < size else [])]


def _nothing(tries: Sequence[Try], where: topologies.Topology) -> str:
    """The message when no try fits."""
    if all(one.refused for one in tries):
        return tries[0].refused
    made = [one.choice for one in tries if not one.refused]
    return (
        f"Nothing fits {where.name}: {len(made)} compiles, down to full recomputation, {_mesh(made[-1])} and batch"
        f" {made[-1].batch_size:,}. Take more devices or a smaller model.\n{table(tries)}"
    )


def _mesh(choice: Choice) -> str:
    return f"fsdp={choice.fsdp}" if choice.fsdp > 1 else "data"
