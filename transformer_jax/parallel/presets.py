"""The presets of rules: which words of `axes.py` are cut over which axis of the mesh, and the mesh each preset is for.

| preset | parameters | activations | its mesh |
|---|---|---|---|
| data | whole everywhere | examples | `data` |
| fsdp | one axis each over `fsdp` | examples | `fsdp` |
| hybrid | one axis each over `fsdp` | examples | `fsdp` within a slice or host, `replica` between them |
| tensor | heads, MLP and vocabulary over `tensor` | examples; heads, MLP and vocabulary | `tensor` in a host, `data` |
| fsdp+tensor | both | as `tensor` | `tensor` (up to 4) within a host, `fsdp` for the rest |
| sequence | as `fsdp` where it is not 1 | examples; tokens, but keys and values whole | `sequence` in a host, `data` |

Examples are cut over `replica`, `data` and `fsdp` under every preset.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from transformer_jax import paths

TENSOR = {"heads": "tensor", "kv_heads": "tensor", "mlp": "tensor", "vocab": "tensor"}
MAY_STAY_WHOLE = ("kv_heads",)
"""Words of parameters that are whole where they do not divide: few key heads, each read by several devices."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """Axes of the mesh by words. Parameters must divide by theirs; activations are left whole where they do not."""

    mesh: Callable[[int, int], dict[str, int]]
    """The sizes of the mesh for (groups: slices or hosts, devices of a host)."""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    activations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fsdp: bool = False
    """Whether every parameter is cut over `fsdp` along the axis that suits best."""

    @property
    def axes(self) -> frozenset[str]:
        """The axes of the mesh that this preset spreads anything over."""
        return frozenset({"replica", "data", "fsdp", *self.parameters.values(), *self.activations.values()})


PRESETS: dict[str, Preset] = {
    "data": Preset(lambda groups, host: {"data": -1}),
    "fsdp": Preset(lambda groups, host: {"fsdp": -1}, fsdp=True),
    "hybrid": Preset(lambda groups, host: {"replica": groups, "fsdp": -1}, fsdp=True),
    "tensor": Preset(lambda groups, host: {"data": -1, "tensor": host}, TENSOR, TENSOR),
    "fsdp+tensor": Preset(lambda groups, host: {"fsdp": -1, "tensor": math.gcd(host, 4)}, TENSOR, TENSOR, fsdp=True),
    "sequence": Preset(
        lambda groups, host: {"data": -1, "sequence": host}, activations={"length": "sequence"}, fsdp=True
    ),
}


def named(name: str) -> Preset:
    """The preset of that name."""
    return PRESETS[paths.one_of("parallel.rules", name, PRESETS)]
