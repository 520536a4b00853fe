"""How long a step takes on hardware nobody here has: a range, and what it rests on.

The estimate is (cycles the compiler expects, loops multiplied out) / clock + (bytes sent) / (speed of the links), as if
nothing were sent while computing. On TPU v3 it came within a factor of 1.5 of every published run it was tried on; on
other chips nobody has compared it. So the range is [estimate / 1.33, 1.5 x estimate], never below the roofline: no step
is faster than its arithmetic at the peak, its state through the memory or its messages over the links.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformer_jax import types
from transformer_jax.optim import schedules
from transformer_jax.tools.plan import chips, collectives, compiling, program_text

BELOW, ABOVE = 1.33, 1.5
"""The range around an estimate: no wider than a factor of 2."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step."""

    step_seconds: float
    low: float
    high: float
    compute: float
    communication: float
    roofline: float
    cycles: int
    collectives: Sequence[collectives.Collective]
    arrays: Sequence[program_text.Array]
    unknown_loops: int
    """Loops whose turns are not in the program, such as those that draw random numbers: counted once."""
    kernels: int
    """Hand-written kernels a step runs, of which the compiler estimates nothing."""
    in_kernels: float = 0.0
    """Seconds that stand for them: their arithmetic at the peak."""
    source: str = "compiler estimate"
    measured: bool = False
    """Whether steps that were taken stand behind the seconds."""


def of(compiled: compiling.Compiled) -> Estimate:
    """The estimate of a step that fits."""
    if not compiled.fits:
        raise types.InputError(f"A step must fit to be timed: {compiled.message or 'its peak exceeds the memory'}")
    runs, unknown = program_text.walk(*program_text.parse(compiled.text))
    sizes: dict[str, int] = {axis: compiled.mesh.shape[axis] for axis in compiled.mesh.axis_names}
    chip = compiled.topology.chip
    network = "slice_index" if chip.mfu is None else "process_index"  # nodes of GPUs are joined by the network
    slices = [getattr(device, network, None) or 0 for device in compiled.mesh.devices.flat]
    said = collectives.summary(runs, sizes, slices)
    cycles, communication = program_text.cycles(runs), sending(said, chip, compiled.mesh.size)
    assert compiled.memory is not None
    moved = compiled.memory.arguments + compiled.memory.outputs
    arithmetic = compiled.flops / (compiled.mesh.size * compiled.peak[0])
    compute = cycles / chip.clock if chip.mfu is None else arithmetic / chip.mfu
    kernels = program_text.uncosted_kernels(runs)
    in_kernels = attention_flops(compiled, kernels) / (compiled.mesh.size * compiled.peak[0])
    roofline = max(arithmetic, moved / chip.memory_bandwidth, communication)
    seconds = max(compute + in_kernels + communication, roofline)
    return Estimate(
        step_seconds=seconds,
        low=max(roofline, seconds / BELOW),
        high=ABOVE * seconds,
        compute=compute,
        communication=communication,
        roofline=roofline,
        cycles=cycles,
        collectives=said,
        arrays=program_text.largest(runs),
        unknown_loops=len(unknown),
        kernels=kernels,
        in_kernels=in_kernels,
        source=Estimate.source if chip.mfu is None else f"FLOPs over an assumed {chip.mfu:.0%} of the peak",
    )


def attention_flops(compiled: compiling.Compiled, kernels: int) -> int:
    """Operations of one step in hand-written attention over all devices, where the program has any; 0 for models
    whose shape we do not know.

    2 products of 2 b h q k d forward, 2.5 times as many backward (FlashAttention-2, 2307.08691), and forward once more
    where it is recomputed.
    """
    config = compiled.program.model.config
    size, grid = getattr(config, "size", None), getattr(config, "grid", None)
    if not kernels or size is None or grid is None:
        return 0
    tokens = math.prod(grid) + config.prefix + getattr(config, "registers", 0)
    again = 1 if compiled.settings["model"].get("remat") == "full" else 0
    forward = 4 * compiled.batch_size * size.depth * size.width * tokens**2
    return round(forward * (3.5 + again))


def sending(said: Sequence[collectives.Collective], chip: chips.Chip, devices: int) -> float:
    """Seconds of communication: all links carry what goes to everybody, those of one dimension of the torus the rest;
    what goes to another slice takes the network."""
    total = 0.0
    for one in said:
        share = 1 if one.devices == devices else chip.dimensions
        total += one.sent / (chip.slices_bandwidth if one.across else chip.link_bandwidth / share)
    return total


def length(settings: Mapping[str, Any], batch_size: int, examples: int | None = None) -> int:
    """Steps of the whole run. `examples`, or `data.examples` of the settings, stand for the data set, which is not
    opened. Raises `InputError` where a length in epochs needs them."""
    known = examples or settings["data"].get("examples")
    total = settings["train"]["total"]
    if isinstance(total, str) and "epoch" in total and not known:
        raise types.InputError(
            f"A length in epochs needs the number of examples, and no data set is opened: config.train.total={total!r}."
            " Give it: --examples N."
        )
    return schedules.steps(total, batch_size=batch_size, epoch_examples=known)
