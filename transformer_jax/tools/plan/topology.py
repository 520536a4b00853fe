"""Devices that are not there: `v3:16x16` as the devices JAX would see on that many chips.

`libtpu`, the compiler and driver of TPUs, is a wheel that works without one.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from transformer_jax import types
from transformer_jax.tools.plan import chips, gpu

INSTALL = "EXTRAS=plan ./launch/local.sh plan ... (or: pip install 'transformer-jax[plan]')"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of chips, or several connected by the network of the data centre."""

    name: str
    chip: chips.Chip
    shape: tuple[int, ...]
    """Chips along every dimension of the torus of one slice."""
    slices: int
    devices: Sequence[jax.Device]

    @property
    def chip_count(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def core_count(self) -> int:
        return len(self.devices) * self.chip.cores_per_device


def describe(name: str) -> Topology:
    """The topology of `v5e:16x16`, or of several such slices, `v5e:16x16*2`. `InputError` for what does not exist."""
    chip, shape, slices = parse(name)
    if chip.family == "cuda":
        return Topology(name, chip, shape, slices, gpu.devices(chip, shape))
    _require_libtpu()
    from jax.experimental import topologies  # not above: it is of no use where nothing is planned

    options: dict[str, Any] = dict(chip.options) | _host(shape)
    if slices > 1:
        options["num_slices"] = slices
    layout = f"{chip.family}:{'x'.join(map(str, shape))}"
    try:
        _quieten()
        found = topologies.get_topology_desc(platform="tpu", topology_name=layout, **options)
    except Exception as error:  # jax.errors.JaxRuntimeError; what it is called changes between versions
        raise types.InputError(f"A topology must be one that the compiler knows: {name!r}: {_first(error)}.") from None
    expected = slices * math.prod(shape) * chip.devices_per_chip
    if len(found.devices) != expected:
        raise types.InputError(
            f"A topology must have {chip.devices_per_chip} devices a chip: {name!r} gives {len(found.devices)} devices,"
            f" not {expected}. This libtpu describes the chip otherwise; install the one that belongs to jax"
            f" {jax.__version__}: {INSTALL}."
        )
    return Topology(name, chip, shape, slices, found.devices)


def parse(name: str) -> tuple[chips.Chip, tuple[int, ...], int]:
    """Chip, shape and number of slices of a name, checked as far as that goes without the compiler."""
    found = re.fullmatch(r"\s*([\w -]+):(\d+(?:x\d+)*)(?:\*(\d+))?\s*", name)
    if found is None:
        known = ", ".join(chips.CHIPS)
        raise types.InputError(
            f"A topology must be CHIP:CHIPSxCHIPS, such as v3:16x16, v5p:4x4x4 or v5e:16x16*2 (two slices): it is"
            f" {name!r}. Chips: {known}."
        )
    chip = chips.find(found[1])
    if chip.family == "cuda":
        return chip, gpu.parse(name.partition(":")[2].strip()), 1
    shape, slices = tuple(map(int, found[2].split("x"))), int(found[3] or 1)
    if len(shape) != chip.dimensions or min(*shape, slices) < 1:
        like = "x".join("4" * chip.dimensions)
        raise types.InputError(
            f"A slice of {chip.name} is a torus of {chip.dimensions} dimensions: {name!r} has {len(shape)}."
            f" Write it like {chip.name}:{like}."
        )
    return chip, shape, slices


def _host(shape: tuple[int, ...]) -> dict[str, Any]:
    """The part of a host where a slice is smaller than one, which has 2 x 2 chips."""
    return {"chips_per_host_bounds": (*shape, 1)[:3]} if math.prod(shape) < 4 else {}


def _require_libtpu() -> None:
    if importlib.util.find_spec("libtpu") is None:
        raise types.InputError(
            f"Compiling for TPUs needs libtpu, which is not installed here. Install the extra `plan`: {INSTALL}."
        )


def _quieten() -> None:
    """libtpu loads without looking for a TPU, without a lock, and without its warnings that there is none."""
    wanted = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_STDERR_LOG_LEVEL": "3"}
    wanted |= {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}  # asked for, and not used
    for key, value in wanted.items():
        os.environ.setdefault(key, value)


def _first(error: Exception) -> str:
    """The first line of a compiler's message."""
    return str(error).strip().splitlines()[0].rstrip(".")
