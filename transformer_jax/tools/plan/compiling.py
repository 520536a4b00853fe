"""The training step of an experiment, compiled for devices that are not there. Running out of memory is an answer."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer_jax import axes, types
from transformer_jax.data import field_ops, loading, ops
from transformer_jax.experiment import checks, sections
from transformer_jax.experiment import program as programs
from transformer_jax.parallel import memory as memories
from transformer_jax.tools.plan import topology as topologies

CLASSES = 1000
"""Where nobody says how many."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([0-9.]+)([KMGT]?)i?B?"


@dataclasses.dataclass(frozen=True)
class Memory:
    """What fills a device, in bytes, as the compiler laid it out."""

    arguments: int
    outputs: int
    aliased: int
    """Of the outputs, those that take the place of arguments: the state, which is donated."""
    temporaries: int
    program: int
    peak: int
    """The most that is in use at any time."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step that the compiler took or refused. Bytes are those of one device."""

    topology: topologies.Topology
    settings: Mapping[str, Any]
    program: programs.Program
    batch_size: int
    text: str
    """The optimised program; empty where it does not fit."""
    memory: Memory | None
    flops: int
    """Of the model, in one step over all devices: our own count (`metrics.flops`)."""
    fits: bool
    needed_bytes: int
    """The peak; where it does not fit, what the compiler said at least would be needed."""
    available_bytes: int
    message: str
    """Why it does not fit, in the words of the compiler."""
    seconds_to_compile: float

    classes_assumed: bool
    """Neither the model nor the data says how many classes there are."""

    @property
    def temporaries(self) -> int:
        """What the step needs besides its arguments; also where that is too much."""
        return self.memory.temporaries if self.memory else (out_of_memory(self.message) or (0, 0))[0]

    @property
    def mesh(self) -> Mesh:
        return self.program.mesh

    @property
    def hardware(self) -> axes.Hardware:
        return axes.of_device(self.mesh.devices.flat[0])

    @property
    def parameters(self) -> int:
        """Numbers in the model, counted once."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.program.abstract.params))

    @property
    def peak(self) -> tuple[float, str]:
        """Operations a second of a device at most, in the dtype the model computes in, and what that runs as."""
        return self.topology.chip.peak_of(self.settings["model"].get("dtype") or "float32")

    @property
    def host_bytes(self) -> int:
        """Bytes of the state of one device that wait in the memory of its host between steps."""
        return sum(_bytes(leaf) for leaf in jax.tree.leaves(self.program.abstract) if _on_host(leaf))

    def bytes_of(self, part: str) -> int:
        """Bytes on one device of `params`, `optimizer` or `average`, without the padding of the layout."""
        return device_bytes(getattr(self.program.abstract, part))


def compile_step(
    settings: Mapping[str, Any], topology: topologies.Topology | str, *, batch_size: int | None = None
) -> Compiled:
    """The training step of resolved `settings` on the devices of `topology`. No data set is opened.

    `batch_size` replaces that of the settings. Raises `InputError` for a batch, mesh or model that cannot be placed.
    """
    where = topologies.describe(topology) if isinstance(topology, str) else topology
    known = settings["model"].get("num_classes") or settings["data"].get("classes")
    settings = _planned(settings, batch_size, known or CLASSES)
    parsed = ops.parse(settings["data"]["preprocess"])
    program = programs.Program(settings, loading.plan(parsed).pixel_range, devices=where.devices)
    size = settings["data"]["batch_size"]
    checks.ranges(settings)
    program.strategy.check_batch(size // settings["train"]["accumulate"])
    begin = time.perf_counter()
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=program.strategy.replicated)
    batch = _batch(program, size, rows=any(isinstance(op, field_ops.OneHot | field_ops.MultiHot) for op in parsed))
    lowered = program.step.lower(program.abstract, batch, rate)
    executable, message = _compiled(lowered, where.name)
    memory, text, available = None, "", where.chip.memory
    if executable is not None:
        memory, text = _memory(executable.memory_analysis()), executable.as_text() or ""
        needed = memory.peak
    else:
        temporaries, available = out_of_memory(message) or (0, available)
        needed = temporaries + device_bytes((program.abstract, batch))
    return Compiled(
        topology=where,
        settings=settings,
        program=program,
        batch_size=size,
        text=text,
        memory=memory,
        flops=program.flops("train", 1) * size,
        fits=memory is not None and memory.peak <= available,
        needed_bytes=needed,
        available_bytes=available,
        message=message,
        seconds_to_compile=time.perf_counter() - begin,
        classes_assumed=not known,
    )


def _compiled(lowered: Any, name: str) -> tuple[Any, str]:
    """The executable, or None and the compiler's message that memory does not suffice."""
    try:
        return lowered.compile(), ""
    except jax.errors.JaxRuntimeError as error:
        message = " ".join(str(error).split())
        if out_of_memory(message) is None:
            raise types.InputError(f"The compiler cannot make this step for {name}: {message[:600]}") from None
        return None, message


def out_of_memory(message: str) -> tuple[int, int] | None:
    """Bytes wanted and bytes there, of a compiler's message that says that device memory does not suffice."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    found = re.search(rf"\({_SIZE}\) exceeds available \w+ \({_SIZE}\)", message)
    found = found or re.search(rf"Used {_SIZE} of {_SIZE} hbm", message)
    if found is None:
        return None
    wanted, there = (int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3))
    return wanted, there


def device_bytes(tree: Any) -> int:
    """Bytes of an abstract tree in the memory of one device."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree) if not _on_host(leaf))


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize


def _on_host(leaf: Any) -> bool:
    return leaf.sharding.memory_kind == memories.HOST


def _planned(settings: Mapping[str, Any], batch_size: int | None, classes: int) -> dict[str, Any]:
    """Settled settings that name the batch and the classes."""
    model, data = dict(settings["model"], num_classes=classes), dict(settings["data"])
    data["batch_size"] = batch_size or data["batch_size"]
    return sections.settled(dict(settings, model=model, data=data))


def _batch(program: programs.Program, size: int, *, rows: bool) -> dict[str, jax.ShapeDtypeStruct]:
    """An abstract batch, spread as the step wants it; labels are `rows` of classes, or one class each."""
    config, where = program.model.config, program.strategy.batch
    labels = ((size, config.num_classes), jnp.float32) if rows else ((size,), jnp.int32)
    return {
        "image": jax.ShapeDtypeStruct((size, *config.image_shape), jnp.uint8, sharding=where),
        "label": jax.ShapeDtypeStruct(*labels, sharding=where),
    }


def _sum(found: Any) -> int:
    donated = found.alias_size_in_bytes
    return found.argument_size_in_bytes + found.output_size_in_bytes - donated + found.temp_size_in_bytes


def _memory(found: Any) -> Memory:
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        program=found.generated_code_size_in_bytes,
        peak=found.peak_memory_in_bytes or _sum(found),  # the GPU compiler gives none
    )
