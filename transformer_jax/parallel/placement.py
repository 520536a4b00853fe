"""Where activations lie on a mesh while a function is traced for it: what layers ask through `axes`."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax import axes as words
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import presets

Names = Sequence[str | None]


@dataclasses.dataclass(frozen=True)
class Placement:
    """`axes.Placement` of a mesh and a preset: named axes are cut as it says or whole, the compiler places the others.

    A batch that does not divide is left to the compiler; heads and features that do not are whole; tokens are cut
    unevenly (the compiler pads them) where every device gets one.
    """

    mesh: Mesh
    preset: str = "data"

    @property
    def hardware(self) -> words.Hardware:
        return words.of_device(self.mesh.devices.flat[0])

    @property
    def examples_only(self) -> bool:
        return self.mesh.shape["sequence"] == self.mesh.shape["tensor"] == 1

    def constrain(self, x: jax.Array, names: Names) -> jax.Array:
        where = [self._where(name, length) for name, length in zip(names, x.shape, strict=True)]
        if self.examples_only and not any(where):
            return x
        free = PartitionSpec.UNCONSTRAINED
        spec = [free if cut is None else cut or None for cut in where]
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*spec)))

    def on_shards(self, function: Callable[..., Any], inputs: Sequence[Names], output: Names) -> Callable[..., Any]:
        """As `axes.on_shards` says. A word that does not divide in one of the inputs is whole in all of them, and query
        heads are cut only together with their key heads."""
        if self.mesh.size == 1:
            return function

        @functools.wraps(function)
        def run(*arrays: jax.Array) -> Any:
            lengths: dict[str, list[int]] = {}
            for names, array in zip(inputs, arrays, strict=True):
                for name, length in zip(names, array.shape, strict=True):
                    lengths.setdefault(name or "", []).append(length)
            whole = {name for name, found in lengths.items() if not all(self._even(name, size) for size in found)}
            if whole & {"heads", "kv_heads"}:
                whole |= {"heads", "kv_heads"}

            def spec(names: Names) -> PartitionSpec:
                return PartitionSpec(
                    *(None if (name or "") in whole else self._axes(name or "") or None for name in names)
                )

            cut = tuple(spec(names) for names in inputs)
            return jax.shard_map(function, mesh=self.mesh, in_specs=cut, out_specs=spec(output), check_vma=False)(
                *arrays
            )

        return run

    def _axes(self, name: str) -> tuple[str, ...]:
        """The axes of the mesh that cut this word."""
        if name == "batch":
            return meshes.BATCH_AXES if meshes.batch_parts(self.mesh) > 1 else ()
        target = presets.named(self.preset).activations.get(name)
        return () if target is None or self.mesh.shape[target] == 1 else (target,)

    def _even(self, name: str, length: int) -> bool:
        return length % math.prod(self.mesh.shape[axis] for axis in self._axes(name)) == 0

    def _where(self, name: str | None, length: int) -> tuple[str, ...] | None:
        """The axes of the mesh that cut an axis of an array, none where it is whole; `None`: the compiler's choice."""
        if name is None:
            return None
        cut = self._axes(name)
        if self._even(name, length):
            return cut
        if name == "batch":
            return None
        return cut if name == "length" and length > math.prod(self.mesh.shape[axis] for axis in cut) else ()
