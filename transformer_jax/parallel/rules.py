"""Where arrays lie on a mesh: parameters by the names of their axes, batches along their first, activations as told.

A preset turns (axis names, shape) of a parameter into a `PartitionSpec`. Whatever lies at the end of a path that is a
parameter's, and has its rank, is placed like it: gradients, moments, averages. Everything else is on every device.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax import axes as words
from transformer_jax import paths, types
from transformer_jax.parallel import mesh as meshes

SMALLEST = 1024
"""Parameters with fewer elements are not worth cutting."""

Names = Sequence[str | None]


def data(names: Names, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """Every device holds every parameter."""
    return PartitionSpec()


def fsdp(names: Names, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The largest axis that divides by `fsdp` is cut, the first of equal ones; never the layers of a stack.

    Layers stay whole because a scan reads them one at a time: a layer that lies on one device would be sent to all.
    """
    size = mesh.shape["fsdp"]
    fit = [
        axis
        for axis, (name, length) in enumerate(zip(names, shape, strict=True))
        if name != "layers" and not length % size
    ]
    if size == 1 or not fit or math.prod(shape) < SMALLEST:
        return PartitionSpec()
    largest = max(fit, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * largest, "fsdp")


PRESETS: dict[str, Callable[[Names, Sequence[int], Mesh], PartitionSpec]] = {"data": data, "fsdp": fsdp}


def shardings(tree: Any, axes: Mapping[str, Names], mesh: Mesh, preset: str) -> Any:
    """A sharding for every leaf of `tree`, in the same containers.

    `axes` names the axes of every parameter by its path in memory. The leaves need only a shape.
    """
    spec = PRESETS[paths.one_of("parallel.rules", preset, PRESETS)]
    found = set()

    def place(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = jax.tree_util.keystr(key_path, simple=True, separator=paths.SEPARATOR)
        name = _parameter(path, axes)
        if name is None or len(axes[name]) != len(leaf.shape):  # a factored moment has an axis less
            return NamedSharding(mesh, PartitionSpec())
        found.add(name)
        return NamedSharding(mesh, spec(axes[name], leaf.shape, mesh))

    placed = jax.tree_util.tree_map_with_path(place, tree)
    if axes and not found:
        raise types.InputError(
            f"Parameters must be named as their axes are: no path of the tree ends in {next(iter(axes))!r}."
        )
    return placed


def batch(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis counts examples."""
    return NamedSharding(mesh, PartitionSpec(meshes.BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


@dataclasses.dataclass(frozen=True)
class Placement:
    """`axes.Placement` of a mesh: examples stay where the batch is.

    The compiler stays free to place the other axes, and an axis that does not divide is left alone.
    """

    mesh: Mesh

    @property
    def hardware(self) -> words.Hardware:
        return words.of_device(self.mesh.devices.flat[0])

    @property
    def examples_only(self) -> bool:
        return self.mesh.shape["sequence"] == self.mesh.shape["tensor"] == 1

    def constrain(self, x: jax.Array, names: Names) -> jax.Array:
        parts, free = meshes.batch_parts(self.mesh), PartitionSpec.UNCONSTRAINED
        where = [
            meshes.BATCH_AXES if name == "batch" and not length % parts else free
            for name, length in zip(names, x.shape, strict=True)
        ]
        if parts == 1 or meshes.BATCH_AXES not in where:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*where)))

    def on_shards(self, function: Callable[..., Any], inputs: Sequence[Names], output: Names) -> Callable[..., Any]:
        if self.mesh.size == 1:
            return function

        def spec(names: Names) -> PartitionSpec:
            return PartitionSpec(*(meshes.BATCH_AXES if name == "batch" else None for name in names))

        cut = tuple(spec(names) for names in inputs)
        return jax.shard_map(function, mesh=self.mesh, in_specs=cut, out_specs=spec(output), check_vma=False)


def _parameter(path: str, axes: Mapping[str, Names]) -> str | None:
    """The longest end of `path` that is a parameter's."""
    parts = path.split(paths.SEPARATOR)
    ends = (paths.SEPARATOR.join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in axes), None)
