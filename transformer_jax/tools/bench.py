"""What a step of an experiment costs on this machine: measured, never estimated."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from transformer_jax import experiment, types
from transformer_jax.experiment import peers
from transformer_jax.metrics import flops
from transformer_jax.parallel import connecting, mesh, together
from transformer_jax.training import loop

WARM_UP = 2
KINDS = ("train", "predict")


def measure(settings: Mapping[str, Any], *, steps: int, fake_data: bool, kind: str = "train") -> dict[str, Any]:
    """Medians over `steps` timed steps, after compilation and a warm-up. Times are seconds, memory is bytes.

    `train` times the compiled step as training runs it, `predict` the forward pass. `cpu_seconds` is user and system
    time of the process. With `fake_data` no loader runs and `data_wait_seconds` is None.
    """
    if steps < 1:
        raise types.InputError(f"bench needs at least one timed step: --steps={steps}.")
    program, batches = _prepare(settings, fake_data)
    state = program.init(jax.random.key(settings["seed"]))
    rate = program.strategy.scalar(1e-4)

    def train_step(batch: Any) -> Any:
        nonlocal state
        state, metrics = program.step(state, batch, rate)
        return metrics

    call = train_step if kind == "train" else lambda batch: program.predict(state.params, batch)
    begin = time.perf_counter()
    first = program.strategy.put(next(batches))
    jax.block_until_ready(call(first))
    compile_seconds = time.perf_counter() - begin
    walls, cpus, waits = _timed(call, lambda: first if fake_data else program.strategy.put(next(batches)), steps)
    work, seconds = program.flops(kind, settings["data"]["batch_size"]), statistics.median(walls)
    kinds = [device.device_kind for device in jax.devices()]
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        "experiment": settings["name"],
        "kind": kind,
        "device": f"{len(kinds)} x {kinds[0]}",
        "batch_size": settings["data"]["batch_size"],
        "steps": steps,
        "step_seconds": seconds,
        "cpu_seconds": statistics.median(cpus),
        "images_per_second": settings["data"]["batch_size"] / seconds,
        "data_wait_seconds": None if fake_data else statistics.median(waits),
        "first_step_seconds": compile_seconds,
        "flops": work,
        "mfu": flops.utilisation(work, seconds),
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _prepare(settings: Mapping[str, Any], fake_data: bool) -> tuple[Any, Iterator[Any]]:
    """The program, and batches of this process: random ones without opening any data, or the experiment's."""
    shared = experiment.Shared()
    peers.require(settings)
    if not fake_data:
        setup = together.by_all(lambda: experiment.prepare(settings, shared))
        connecting.connect(setup.program.mesh)
        return setup.program, (loop.split(batch)[0] for batch in setup.data.batches(0))
    program = together.by_all(lambda: experiment.without_data(settings, shared))
    connecting.connect(program.mesh)
    return program, iter([program.fake_batch(settings["data"]["batch_size"] // mesh.readers(program.mesh).count)])


def _timed(
    call: Callable[[Any], Any], fetch: Callable[[], Any], steps: int
) -> tuple[list[float], list[float], list[float]]:
    """Wall, CPU and waiting seconds of each step, the warm-up left out."""
    walls, cpus, waits = [], [], []
    for index in range(steps + WARM_UP):
        wall, cpu = time.perf_counter(), time.process_time()
        batch = fetch()
        wait = time.perf_counter() - wall
        jax.block_until_ready(call(batch))
        if index >= WARM_UP:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            waits.append(wait)
    return walls, cpus, waits
