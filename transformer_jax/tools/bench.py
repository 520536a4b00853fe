"""What a step of an experiment costs on this machine: measured, never estimated."""

import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax import experiment, types
from transformer_jax.metrics import flops

WARM_UP = 2


def measure(settings: Mapping[str, Any], *, steps: int, fake_data: bool, kind: str = "train") -> dict[str, Any]:
    """Medians over `steps` timed steps, after compilation and a warm-up. Times are seconds, memory is bytes.

    `kind` is `train` (the compiled step, as in training) or `predict` (the forward pass). `cpu_seconds` is user and
    system time of the whole process. With `fake_data` the loader is left out and `data_wait_seconds` is None.
    """
    if steps < 1:
        raise types.InputError(f"bench needs at least one timed step: --steps={steps}.")
    setup = experiment.prepare(settings, fake_data=fake_data)
    program, batch_size = setup.program, settings["data"]["batch_size"]
    batches = iter(_repeat(setup.fake_batch())) if fake_data else setup.batches(0)
    state = program.init(jax.random.key(settings["seed"]))
    rate = program.scalar(1e-4)
    clock = time.perf_counter()
    batch = program.put(next(batches))
    call = program.compiled(kind, state, batch, rate)
    compile_seconds = time.perf_counter() - clock

    walls, cpus, waits = [], [], []
    for index in range(steps + WARM_UP):
        wall, cpu = time.perf_counter(), time.process_time()
        if not fake_data:
            batch = program.put(next(batches))
        waited = time.perf_counter() - wall
        if kind == "train":
            state, out = call(state, batch, rate)
        else:
            out = call(state.params, batch)
        jax.block_until_ready(out)
        if index >= WARM_UP:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            waits.append(waited)
    work = flops.count(program.jaxpr(kind, state, batch, rate))
    step_seconds = statistics.median(walls)
    return {
        "experiment": settings["name"],
        "kind": kind,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "batch_size": batch_size,
        "steps": steps,
        "step_seconds": step_seconds,
        "cpu_seconds": statistics.median(cpus),
        "images_per_second": batch_size / step_seconds,
        "data_wait_seconds": None if fake_data else statistics.median(waits),
        "compile_seconds": compile_seconds,
        "flops_per_step": work,
        "mfu": flops.utilisation(work, step_seconds),
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _repeat(batch: Mapping[str, np.ndarray]) -> Iterator[Mapping[str, np.ndarray]]:
    while True:
        yield batch
