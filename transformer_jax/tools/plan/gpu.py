"""NVIDIA GPUs that are not there: the description the compiler wants in place of a device, written here.

The plugin of `jax[cuda13]` compiles for a described GPU, without a driver. Memory and communication of the program are
facts. It gives no cycles, tunes nothing, and takes programs that no GPU could hold: whether one fits we compare
ourselves, and time is FLOPs over an assumed share of the peak (`chips.Chip.mfu`), labelled so.

Sources. Memory, multiprocessors, caches, clocks: what the devices report (the `gpu_device_info` that XLA keeps of A100,
H100, H200 and B200); L4: NVIDIA's data sheet and CUDA's table of compute capability 8.9.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import jax

from transformer_jax import types
from transformer_jax.tools.plan import chips

INSTALL = "pip install 'jax-cuda13-plugin' (the extra `cuda`)"


@dataclasses.dataclass(frozen=True)
class Target:
    """What the compiler asks of a GPU."""

    capability: tuple[int, int]
    multiprocessors: int
    units: int
    """Of float32, on a multiprocessor."""
    clock_ghz: float
    memory: int
    """Bytes of the whole device."""
    cache: int
    shared: int
    """Bytes of shared memory on a multiprocessor."""
    threads: int = 2048


TARGETS = {
    "a100": Target((8, 0), 108, 64, 1.41, 85_100_068_864, 41_943_040, 167_936),
    "a100-40": Target((8, 0), 108, 64, 1.41, 42_331_013_120, 41_943_040, 167_936),
    "h100": Target((9, 0), 132, 128, 1.98, 84_942_979_072, 52_428_800, 233_472),
    "h200": Target((9, 0), 132, 128, 1.98, 151_397_597_184, 52_428_800, 233_472),
    "b200": Target((10, 0), 148, 128, 1.965, 191_514_411_008, 132_644_864, 233_472),
    "l4": Target((8, 9), 58, 128, 2.04, 24_152_899_584, 50_331_648, 102_400, 1536),
}
"""Of every chip in `chips.CHIPS` whose family is cuda."""


def devices(chip: chips.Chip, shape: Sequence[int]) -> Sequence[jax.Device]:
    """The devices of (nodes, GPUs of a node). `InputError` without the plugin."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise types.InputError(f"Compiling for NVIDIA GPUs needs their plugin, which is not installed here: {INSTALL}.")
    from jax.experimental import topologies  # not above: it is of no use where nothing is planned

    _register()
    found = topologies.get_topology_desc(
        platform="cuda",
        topology_name=chip.name,
        topology="1x" + "x".join(map(str, shape)),
        target_config=target(chip),
    )
    return found.devices


def target(chip: chips.Chip) -> str:
    """The description of a GPU, as text of XLA's `GpuTargetConfigProto`."""
    info = TARGETS[chip.name]
    fields: dict[str, Any] = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": info.shared,
        "shared_memory_per_block_optin": info.shared - 1024,
        "threads_per_core_limit": info.threads,
        "core_count": info.multiprocessors,
        "fpus_per_core": info.units,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(chip.memory_bandwidth),
        "l2_cache_size": info.cache,
        "clock_rate_ghz": info.clock_ghz,
        "device_memory_size": info.memory,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
    major, minor = info.capability
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: "{chip.kind}"\n'
    )


def parse(text: str) -> tuple[int, int]:
    """(nodes, GPUs of a node) of `8` or `4x8`."""
    found = re.fullmatch(r"(?:(\d+)x)?(\d+)", text)
    if found is None or min(int(found[1] or 1), int(found[2])) < 1:
        raise types.InputError(
            f"A GPU topology must be CHIP:GPUS or CHIP:NODESxGPUS, such as h100:4x8: it is {text!r}."
        )
    return int(found[1] or 1), int(found[2])


def _register() -> None:
    """JAX learns of the plugin when it looks for devices, which it need not find."""
    jax.devices()
