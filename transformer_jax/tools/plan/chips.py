"""The TPUs and GPUs we can compile for: what one device of each is, and where the figures come from.

A device is what JAX sees: one core of a v2, v3 or 7x chip, a whole chip of the others.

Sources. Peak FLOPs: `metrics.flops`. Memory left to a program: what the compiler says when one does not fit (a test).
Bandwidths of a chip: Google's Cloud TPU pages (v3 900 GB/s; v4 1,200; v5e 819 and 1,600 Gbit/s of links; v5p 2,765 and
1,200 GB/s of links both ways; v6e 1,638 and 800; 7x 7,380 and 1,200), and for the links of v3 and v4 "TPU v4: an
optically reconfigurable supercomputer" (2304.01433, table 4: 4 of 70 and 6 of 50 GB/s each way), of v2 "A
domain-specific supercomputer for training deep neural networks" (CACM 2020: 4 of 496 Gbit/s; its memory 700 GB/s,
UNVERIFIED). Clocks: peak FLOPs over the multiply-adds of a cycle (128 x 128 units; 256 x 256 from v6e), v3 and v4 as
the papers have them; 7x is derived in the same way, UNVERIFIED. Network between slices: Google's pages for v5p (50
Gbit/s a chip), v6e and 7x (100); taken as 50 for the others, UNVERIFIED.

GPUs: NVIDIA's data sheets (links: NVLink, half of what they give for both ways; L4: PCIe 4.0 x16). Memory left to a
program: three quarters, what JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise. Network: one adapter of
400 Gbit/s a GPU, 200 for A100, as in DGX systems; L4 25, UNVERIFIED. That they reach 35 % of their peak on a ViT is an
assumption. Float32 products run as TF32 there, at half the rate of bfloat16 on all of them (the same data sheets).
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

from transformer_jax import paths
from transformer_jax.metrics import flops

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation; figures of one device, in bytes, hertz and bytes a second."""

    name: str
    """As in a topology: `v3`."""
    family: str
    """As libtpu names it."""
    kind: str
    """As JAX names a device of it."""
    clock: float
    memory: int
    """What a program may use."""
    memory_bandwidth: float
    link_bandwidth: float
    """Of all links of a device, one way."""
    slices_bandwidth: float
    """To other slices, over the data centre's network."""
    dimensions: int
    """Of the torus."""
    devices_per_chip: int = 1
    cores_per_device: int = 1
    """TensorCores, by which published runs on v2 and v3 are counted."""
    options: tuple[tuple[str, str], ...] = ()
    """What `get_topology_desc` must be told to describe the chip as it is rented."""
    mfu: float | None = None
    """Share of the peak that is assumed where the compiler expects no number of cycles: an assumption."""

    @property
    def peak(self) -> float:
        """bfloat16 operations a second, at most."""
        rate = flops.peak(self.kind)
        assert rate is not None, self.kind  # a test has every chip in the table
        return rate

    def peak_of(self, dtype: Any) -> tuple[float, str]:
        """Operations a second of matrix products in that dtype, at most, and what they run as.

        TPUs take float32 in passes of bfloat16, one by default; GPUs take it as TF32.
        """
        tf32 = self.family == "cuda" and np.dtype(dtype).itemsize >= 4
        return (self.peak / 2, "TF32") if tf32 else (self.peak, "bfloat16")


_MFU = 0.35
_SHARE = 0.75
_MEGACORE = (("chip_config_name", "megacore"),)


def _gpu(name: str, kind: str, memory: int, bandwidth: float, links: float, network: float) -> Chip:
    """A GPU; the clock plays no part without cycles."""
    return Chip(name, "cuda", kind, math.nan, int(_SHARE * memory), bandwidth, links, network, 1, mfu=_MFU)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v2", "v2", "TPU v2", 0.70e9, int(7.48 * GIB), 350e9, 124e9, 3.1e9, 2, devices_per_chip=2),
        Chip("v3", "v3", "TPU v3", 0.94e9, int(15.48 * GIB), 450e9, 140e9, 3.1e9, 2, devices_per_chip=2),
        Chip("v4", "v4", "TPU v4", 1.05e9, int(30.75 * GIB), 1200e9, 300e9, 6.2e9, 3, 1, 2, _MEGACORE),
        Chip("v5e", "v5e", "TPU v5 lite", 1.50e9, int(15.75 * GIB), 819e9, 200e9, 6.2e9, 2),
        Chip("v5p", "v5p", "TPU v5", 1.75e9, int(95.73 * GIB), 2765e9, 600e9, 6.2e9, 3, 1, 2),
        Chip("v6e", "v6e", "TPU v6 lite", 1.75e9, int(31.24 * GIB), 1638e9, 400e9, 12.5e9, 2),
        Chip("7x", "tpu7x", "TPU7x", 2.20e9, int(94.74 * GIB), 3690e9, 300e9, 6.2e9, 3, devices_per_chip=2),
        _gpu("a100", "NVIDIA A100-SXM4-80GB", 85_100_068_864, 2039.04e9, 300e9, 25e9),
        _gpu("a100-40", "NVIDIA A100-SXM4-40GB", 42_331_013_120, 1555.2e9, 300e9, 25e9),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 84_942_979_072, 3352.32e9, 450e9, 50e9),
        _gpu("h200", "NVIDIA H200", 151_397_597_184, 4800e9, 450e9, 50e9),
        _gpu("b200", "NVIDIA B200", 191_514_411_008, 7672.32e9, 900e9, 50e9),
        _gpu("l4", "NVIDIA L4", 24_152_899_584, 300e9, 32e9, 3.1e9),
    )
}


def find(name: str) -> Chip:
    """The chip of that name: `v5e`, `tpu7x`, as in a topology. `InputError` for others."""
    word = re.sub(r"^(tpu[-_ ]?)(?=v?\d)", "", name.strip().lower())
    word = {"v5litepod": "v5e", "v7x": "7x", "ironwood": "7x", "trillium": "v6e"}.get(word, word)
    return CHIPS[paths.one_of("The chip of a topology", word, CHIPS)]
