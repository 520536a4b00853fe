"""What a plan says, for machines (one JSON object) and for people. Every figure says how it was got.

`KEYS` is the contract of `--json`: every key is always there, `null` where it does not apply, and none is renamed.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from transformer_jax.tools.plan import compiling, estimate, tiles
from transformer_jax.tools.plan import topology as topologies

FACT, COUNT, GUESS, SUM = "fact, compiled", "our count", "compiler estimate", "from the estimate"
DAY = 86_400.0

KEYS: dict[str, tuple[str, str]] = {
    "experiment": ("setting", "name of the experiment"),
    "topology": ("setting", "as it was asked for"),
    "device_kind": (FACT, "what JAX calls a device of it"),
    "devices": (FACT, "devices of the mesh: cores of v2, v3 and 7x, chips of the others"),
    "chips": (FACT, "chips that are rented"),
    "cores": (FACT, "TensorCores"),
    "mesh": ("setting", "axes of the mesh that are longer than 1, {axis: devices}"),
    "rules": ("setting", "preset that cuts parameters"),
    "batch_size": ("setting", "examples of a step, over all devices"),
    "parameters": (COUNT, "numbers in the model"),
    "parameter_bytes": (COUNT, "of a device, padding left out"),
    "optimizer_bytes": (COUNT, "of a device, padding left out"),
    "fits": (FACT, "whether the step fits into the memory of a device"),
    "peak_bytes": (FACT, "most memory in use at a time on a device; where it does not fit, at least so much is wanted"),
    "available_bytes": (FACT, "memory of a device that a program may use"),
    "memory": (FACT, "{arguments, outputs, aliased, temporaries, program} in bytes; temporaries alone if it overflows"),
    "largest_arrays": (FACT, "[{shape, bytes, unpadded_bytes, source}] the program makes, not all there at once"),
    "host_bytes": (COUNT, "of the state of a device that wait in the memory of its host (parallel.offload)"),
    "flops": (COUNT, "operations of the model in a step, recomputation left out"),
    "collectives": (FACT, "[{kind, axes, devices, count, bytes, sent, across}] of a step; bytes of whole arrays"),
    "collective_bytes": (FACT, "sum of their bytes"),
    "estimated_cycles": (GUESS, "of a device and step, loops multiplied out; null on GPUs, whose compiler gives none"),
    "compute_seconds": (GUESS, "cycles over the clock; on GPUs operations over an assumed share of the peak"),
    "kernel_seconds": ("assumption", "hand-written attention, which has no cycles, at the peak; part of step_seconds"),
    "collective_seconds": ("assumption", "bytes sent over the speed of the links, nothing hidden behind computing"),
    "roofline_seconds": ("assumption", "the step at the peak of arithmetic, memory or links, whichever is slowest"),
    "step_seconds": (GUESS, "compute and collectives, one after the other; or measured, see time_source"),
    "step_seconds_range": (GUESS, "[low, high]: between the estimate / 1.33 or the roofline, and 1.5 x the estimate"),
    "time_source": ("setting", "what step_seconds rests on"),
    "mfu": (SUM, "share of the peak: bfloat16, for float32 models on GPUs TF32"),
    "mfu_range": (SUM, "[low, high]"),
    "images_per_second": (SUM, "over all devices"),
    "steps": ("setting", "of the whole run"),
    "days": (SUM, "of training steps: no start-up, evaluation, checkpoints or lost work"),
    "days_range": (SUM, "[low, high]"),
    "device_days": (SUM, "days x devices"),
    "core_days": (SUM, "days x cores"),
    "core_days_range": (SUM, "[low, high]"),
    "cost": ("assumption", "with the prices that were given"),
    "cost_range": ("assumption", "[low, high]"),
    "currency": ("setting", "of the prices"),
    "search": (GUESS, "[{remat, fsdp, batch_size, unrolled, fits, refused, ...}] with --search: every try"),
    "overrides": ("setting", "with --search: the overrides of the recipe that make this plan"),
    "largest_batch": (FACT, "with --search: largest batch that was tried and fits"),
    "compile_seconds": ("measured here", "time the compiler took"),
    "versions": (FACT, "{jax, jaxlib, libtpu}: another compiler plans otherwise"),
    "message": (FACT, "the compiler's, where it does not fit"),
    "warnings": (COUNT, "what fills the tiles of a TPU badly, in words"),
    "assumptions": ("assumption", "what the figures rest on, in words"),
    "how": ("setting", "{key: how it was got}, this table"),
}

_GPU = {
    "compute_seconds": "assumption, FLOPs over a share of the peak",
    "step_seconds": "assumption, compute and collectives",
    "step_seconds_range": "assumption",
    "search": "assumption",
    "fits": "our comparison",
    "available_bytes": "assumption, three quarters",
}
"""What is got otherwise where the compiler gives no cycles and refuses nothing."""

_MEASURED = {
    **dict.fromkeys(("step_seconds", "step_seconds_range"), "measured ratio"),
    **dict.fromkeys(("mfu", "mfu_range", "images_per_second"), "from the measured ratio"),
    **dict.fromkeys(("days", "days_range", "device_days", "core_days", "core_days_range"), "from the measured ratio"),
}

Adjust = Callable[[estimate.Estimate, compiling.Compiled], estimate.Estimate]


def plan(
    settings: Mapping[str, Any],
    topology: topologies.Topology | str,
    *,
    batch_size: int | None = None,
    examples: int | None = None,
    adjust: Adjust | None = None,
    prices: Any = None,
) -> dict[str, Any]:
    """The plan of an experiment: `KEYS`. `adjust` replaces the estimate by what was measured, `prices` has `cost`."""
    size = batch_size or settings["data"]["batch_size"]
    steps = estimate.length(settings, size, examples)  # before anything is compiled: it may be unknown
    where = topologies.describe(topology) if isinstance(topology, str) else topology
    if prices is not None:
        prices.cost(where, 0.0)  # likewise
    compiled = compiling.compile_step(settings, where, batch_size=batch_size)
    return make(compiled, steps, adjust=adjust, prices=prices)


def make(
    compiled: compiling.Compiled, steps: int, *, adjust: Adjust | None = None, prices: Any = None
) -> dict[str, Any]:
    """The plan of a compiled step that is taken `steps` times."""
    found: dict[str, Any] = dict.fromkeys(KEYS)
    timed = estimate.of(compiled) if compiled.fits else None
    timed = adjust(timed, compiled) if timed and adjust else timed
    found.update(_placed(compiled), steps=steps, how=_how(compiled, timed), warnings=tiles.warnings(compiled))
    if timed is not None:
        found.update(_timed(compiled, timed))
        found.update(_totals(compiled, timed, steps, prices))
    found["assumptions"] = assumptions(compiled, timed)
    return found


def _how(compiled: compiling.Compiled, timed: estimate.Estimate | None) -> dict[str, str]:
    """How every figure of this plan was got."""
    how = {key: how for key, (how, _) in KEYS.items()}
    how |= _GPU if compiled.topology.chip.mfu is not None else {}
    return how | (_MEASURED if timed is not None and timed.measured else {})


def _placed(compiled: compiling.Compiled) -> dict[str, Any]:
    """Facts: what lies where."""
    where, sizes = compiled.topology, dict(compiled.mesh.shape)
    memory = vars(compiled.memory) if compiled.memory else {"temporaries": compiled.temporaries}
    return {
        "experiment": compiled.settings["name"],
        "topology": where.name,
        "device_kind": compiled.hardware.kind,
        "devices": len(where.devices),
        "chips": where.chip_count,
        "cores": where.core_count,
        "mesh": {axis: size for axis, size in sizes.items() if size > 1},
        "rules": compiled.settings["parallel"]["rules"],
        "batch_size": compiled.batch_size,
        "parameters": compiled.parameters,
        "parameter_bytes": compiled.bytes_of("params"),
        "optimizer_bytes": compiled.bytes_of("optimizer"),
        "fits": compiled.fits,
        "peak_bytes": compiled.needed_bytes,
        "available_bytes": compiled.available_bytes,
        "memory": {name: size for name, size in memory.items() if name != "peak"},
        "host_bytes": compiled.host_bytes,
        "flops": compiled.flops,
        "compile_seconds": round(compiled.seconds_to_compile, 1),
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "libtpu")},
        "message": compiled.message or None,
    }


def _timed(compiled: compiling.Compiled, timed: estimate.Estimate) -> dict[str, Any]:
    """What a step does, and how long it takes."""
    at_peak = compiled.flops / (len(compiled.topology.devices) * compiled.peak[0])
    return {
        "largest_arrays": [
            {"shape": one.shape, "bytes": one.bytes, "unpadded_bytes": one.unpadded, "source": one.source}
            for one in timed.arrays
        ],
        "collectives": [vars(one) for one in timed.collectives],
        "collective_bytes": sum(one.bytes for one in timed.collectives),
        "estimated_cycles": timed.cycles if compiled.topology.chip.mfu is None else None,
        "compute_seconds": timed.compute,
        "kernel_seconds": timed.in_kernels,
        "collective_seconds": timed.communication,
        "roofline_seconds": timed.roofline,
        "step_seconds": timed.step_seconds,
        "step_seconds_range": [timed.low, timed.high],
        "time_source": timed.source,
        "mfu": at_peak / timed.step_seconds,
        "mfu_range": [at_peak / timed.high, at_peak / timed.low],
        "images_per_second": compiled.batch_size / timed.step_seconds,
    }


def _totals(compiled: compiling.Compiled, timed: estimate.Estimate, steps: int, prices: Any) -> dict[str, Any]:
    """The whole run: days, what they are multiplied with, and what they cost."""
    where = compiled.topology
    seconds, span = steps * timed.step_seconds, [steps * timed.low, steps * timed.high]
    found: dict[str, Any] = {
        "days": seconds / DAY,
        "days_range": [one / DAY for one in span],
        "device_days": seconds / DAY * len(where.devices),
        "core_days": seconds / DAY * where.core_count,
        "core_days_range": [one / DAY * where.core_count for one in span],
    }
    if prices is not None:
        found["cost"] = prices.cost(where, seconds)
        found["cost_range"] = [prices.cost(where, one) for one in span]
        found["currency"] = prices.currency
    return found


def assumptions(compiled: compiling.Compiled, timed: estimate.Estimate | None) -> list[str]:
    """What the figures rest on."""
    chip, settings = compiled.topology.chip, compiled.settings
    said = []
    if compiled.classes_assumed:
        said.append("The head has 1,000 classes: neither the model nor the recipe names their number (--classes N).")
    if chip.mfu is not None:
        said.append(
            "A program may take three quarters of the memory of a GPU, as JAX does unless"
            " XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise. Where cuDNN's attention would run, this program has a"
            " stand-in in pieces: its memory and operations differ."
        )
    if timed is None:
        return said
    if timed.source == estimate.Estimate.source:
        said.append(
            f"Time is the compiler's estimate at {chip.clock / 1e9:.2f} GHz; within a factor of 1.5 of the published"
            " runs on TPU v3 it was compared with, compared with nothing on other chips. --calibrate replaces it."
        )
    if chip.mfu is not None and not timed.measured:
        said.append(f"A GPU reaches {chip.mfu:.0%} of its peak: an assumption, --calibrate replaces it.")
    rate, runs_as = compiled.peak
    said.append(
        f"Links carry {chip.link_bandwidth / 1e9:.0f} GB/s a device, and nothing is sent while computing; matrix"
        f" products run as {runs_as}, whose peak is {rate / 1e12:,.0f} TFLOP/s a device."
    )
    said += _beside(compiled, timed)
    if timed.unknown_loops:
        said.append(f"{timed.unknown_loops} loops of unknown length (random numbers) count as one turn.")
    if settings["data"].get("examples"):
        said.append(f"{settings['data']['examples']:,} examples, as the recipe says; no data set was opened.")
    return said


def _beside(compiled: compiling.Compiled, timed: estimate.Estimate) -> list[str]:
    """What the time of a step leaves out."""
    said = []
    if timed.in_kernels:
        said.append(
            f"{timed.kernels} runs of hand-written attention a step have no cycles: they count as their operations at"
            " the peak, which they do not reach."
        )
    elif timed.kernels:
        said.append(f"{timed.kernels} runs of hand-written kernels a step have no estimate: the step is slower.")
    if compiled.host_bytes:
        said.append(
            f"{compiled.host_bytes / 2**30:,.2f} GiB of the state of a device come from its host and return every step:"
            " no time is counted for that, so the step is slower."
        )
    return said


def explain() -> str:
    """The keys of `--json`, one a line."""
    return "\n".join(f"  {key:20} {text} [{how}]" for key, (how, text) in KEYS.items())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
