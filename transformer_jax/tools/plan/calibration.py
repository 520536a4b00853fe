"""Measured steps in place of estimated ones: how much longer (or shorter) a chip takes than the compiler expects.

A run says in `run.json` where it ran and in `metrics.jsonl` how long its steps took. Its own step is compiled for as
many of the same chips; measured over estimated seconds is the ratio, kept for every kind of chip in a small file of the
user's, and every later plan for that chip is the estimate times it.
"""

import dataclasses
import datetime
import json
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from transformer_jax import types
from transformer_jax.experiment import sections
from transformer_jax.tools.plan import chips, compiling, estimate
from transformer_jax.training import provenance, reporting

FEWEST = 3
"""Lines of step times below which there is nothing to take a median of."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds of a run's steps, waiting for data left out: median, and what nine of ten lines lie between."""

    seconds: float
    low: float
    high: float
    kind: str
    devices: int
    settings: Mapping[str, Any]
    processes: int = 1


def file() -> pathlib.Path:
    """Where ratios are kept; `TRANSFORMER_JAX_CALIBRATION` names another place."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    chosen = os.environ.get("TRANSFORMER_JAX_CALIBRATION") or f"{base}/transformer_jax/calibration.json"
    return pathlib.Path(chosen).expanduser()


def of_run(run_dir: str, kind: str) -> Callable[[estimate.Estimate, compiling.Compiled], estimate.Estimate]:
    """What turns estimates for the chip `kind` into them times what the run measured, which is kept for the chip.

    The run is read now, and its own step compiled at most once. Raises `InputError` for a run on another chip.
    """
    ran = measured(run_dir)
    if ran.kind != kind:
        raise types.InputError(
            f"A run calibrates the chip it ran on: {run_dir} ran on {ran.kind}, the plan is for {kind}. Name a run on"
            f" {kind}, or plan for {ran.kind}."
        )
    own: dict[str, estimate.Estimate] = {}

    def adjust(timed: estimate.Estimate, compiled: compiling.Compiled) -> estimate.Estimate:
        where = compiled.topology.name if _same_devices(ran, compiled) else _slice(ran, compiled, run_dir)
        if where not in own:
            own[where] = timed if _same(ran, compiled) else _estimated(ran, where)
        ratio, low, high = (seconds / own[where].step_seconds for seconds in (ran.seconds, ran.low, ran.high))
        when = datetime.date.today().isoformat()
        kept = {"ratio": ratio, "low": low, "high": high, "run": os.path.abspath(run_dir), "when": when}
        _keep(kind, kept)
        return scaled(timed, kept)

    return adjust


def apply(timed: estimate.Estimate, compiled: compiling.Compiled, run_dir: str) -> estimate.Estimate:
    """The estimate of one plan times what the run in `run_dir` measured, which is kept for the chip."""
    return of_run(run_dir, compiled.hardware.kind)(timed, compiled)


def known(timed: estimate.Estimate, compiled: compiling.Compiled) -> estimate.Estimate:
    """The estimate times the ratio that is kept for its chip; as it is when there is none."""
    kept = _read().get(compiled.hardware.kind)
    return timed if kept is None else scaled(timed, kept)


def scaled(timed: estimate.Estimate, kept: Mapping[str, Any]) -> estimate.Estimate:
    """The estimate times a ratio; the range is that of the measured steps."""
    return dataclasses.replace(
        timed,
        step_seconds=timed.step_seconds * kept["ratio"],
        low=timed.step_seconds * min(kept["low"], kept["ratio"]),
        high=timed.step_seconds * max(kept["high"], kept["ratio"]),
        measured=True,
        source=f"measured: {kept['ratio']:.2f} x the estimate, by {kept['run']} ({kept['when']})",
    )


def measured(run_dir: str) -> Measured:
    """What a run directory says. `InputError` when it says nothing about steps."""
    folder = pathlib.Path(run_dir)
    try:
        record = json.loads((folder / provenance.FILE).read_text())
        settings = json.loads((folder / "config.json").read_text())
        lines = reporting.read(folder / reporting.METRICS)
    except (OSError, ValueError) as error:
        raise types.InputError(f"--calibrate must be a run directory of train: {run_dir}: {error}.") from None
    latest = [record, *record.get("restarts", [])]
    devices = [one["devices"] for one in latest]
    places = {(one["kind"], one["count"], one.get("processes", 1)) for one in devices}
    if len(places) > 1:
        raise types.InputError(f"A run calibrates one kind of hardware: {run_dir} was continued on {sorted(places)}.")
    seconds = [line["time/step_ms"] / 1e3 * (1 - line.get("time/data_wait", 0.0)) for line in lines if _tells(line)]
    if len(seconds) < FEWEST:
        raise types.InputError(
            f"A ratio needs at least {FEWEST} lines of step times without a compile: {run_dir} has {len(seconds)}."
            " Train longer, or set train.log_every lower."
        )
    ordered, tail = sorted(seconds), len(seconds) // 20
    kind, count, processes = places.pop()
    return Measured(statistics.median(ordered), ordered[tail], ordered[-1 - tail], kind, count, settings, processes)


def _tells(line: Mapping[str, Any]) -> bool:
    return bool(line.get("time/step_ms")) and "time/compile_s" not in line


def _same(ran: Measured, compiled: compiling.Compiled) -> bool:
    """Whether the run took the very step that was compiled."""
    parts = ("model", "optim", "parallel")
    theirs, ours = sections.settled(sections.restore(ran.settings)), compiled.settings
    size = theirs["data"]["batch_size"], theirs["train"]["accumulate"]
    return (
        _same_devices(ran, compiled)
        and size == (compiled.batch_size, ours["train"]["accumulate"])
        and all(dict(theirs[part]) == dict(ours[part]) for part in parts)
    )


def _same_devices(ran: Measured, compiled: compiling.Compiled) -> bool:
    """Whether the run had the devices of the plan; GPUs of one node are no GPUs of several."""
    nodes = _nodes(ran) if compiled.topology.chip.family == "cuda" else None
    return ran.devices == compiled.mesh.size and nodes in (None, compiled.topology.shape[0])


def _nodes(ran: Measured) -> int | None:
    """Nodes of a run on GPUs: a process has those of its node, or one alone and then nothing says where it was."""
    return None if ran.devices == ran.processes > 1 else ran.processes


def _slice(ran: Measured, compiled: compiling.Compiled, run_dir: str) -> str:
    """The topology to compare the run on: as many devices of the chip."""
    chip = compiled.topology.chip
    if chip.family != "cuda":
        return f"{chip.name}:{shape(chip, ran.devices)}"
    nodes = _nodes(ran)
    if nodes is None:
        raise types.InputError(
            f"A run on GPUs is compared on the nodes it had: {run_dir} had {ran.processes} processes of one GPU each,"
            f" on nodes it does not name. Plan for as many GPUs: --topology {chip.name}:NODESxGPUS."
        )
    return f"{chip.name}:{nodes}x{ran.devices // nodes}"


def _estimated(ran: Measured, where: str) -> estimate.Estimate:
    """The estimate of the run's own step."""
    return estimate.of(compiling.compile_step(sections.restore(ran.settings), where))


def shape(chip: chips.Chip, devices: int) -> str:
    """The usual slice with so many devices: as square as powers of two can be. `InputError` for other numbers."""
    count = devices // chip.devices_per_chip
    doublings = round(math.log2(count)) if count else 0
    if count * chip.devices_per_chip != devices or 2**doublings != count:
        raise types.InputError(
            f"A run can be compared on a slice of 1, 2, 4, 8, ... chips: it had {devices} devices of {chip.name}."
        )
    sides = [2 ** ((doublings + axis) // chip.dimensions) for axis in range(chip.dimensions)]
    return "x".join(map(str, sides[::-1] if min(sides) == 1 and chip.dimensions == 3 else sides))


def _read() -> dict[str, Any]:
    try:
        return json.loads(file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise types.InputError(f"The file of calibrations cannot be read: {file()}: {error}. Delete it.") from None


def _keep(kind: str, kept: Mapping[str, Any]) -> None:
    found = {**_read(), kind: kept}
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        temporary = file().with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=2) + "\n")
        temporary.replace(file())
    except OSError as error:
        raise types.InputError(f"The ratio cannot be kept: {file()}: {error.strerror}.") from None
