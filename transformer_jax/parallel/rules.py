"""From logical axes to shardings: what is split over which axis of the mesh, for parameters and for activations."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax import paths, types
from transformer_jax.parallel import mesh as meshes

PRESETS = ("data", "fsdp")
"""`data`: every device holds all parameters. `fsdp`: each parameter and its optimizer state is split (ZeRO-3)."""


def parameter_spec(axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh, preset: str) -> PartitionSpec:
    """Where one parameter goes. `fsdp` splits its largest axis that divides; never `layers`, which is scanned."""
    if preset not in PRESETS:
        raise types.InputError(
            f"parallel.rules must be one of {', '.join(PRESETS)}: not {preset!r}.{paths.did_you_mean(preset, PRESETS)}"
        )
    size = mesh.shape["fsdp"]
    if preset == "data" or size == 1:
        return PartitionSpec()
    able = [(shape[i], i) for i, name in enumerate(axes) if name != "layers" and shape[i] % size == 0]
    if not able:
        return PartitionSpec()
    _, split = max(able, key=lambda pair: (pair[0], -pair[1]))
    return PartitionSpec(*("fsdp" if i == split else None for i in range(split + 1)))


def shardings(tree: Any, axes: Mapping[str, tuple[str, ...]], mesh: Mesh, preset: str) -> Any:
    """A sharding for every leaf of `tree` (shapes are enough), in its own containers.

    `axes` names the axes of each parameter. Any leaf whose path ends with a parameter's and whose shape is the
    parameter's is sharded like it: moments and averages are; counts, keys and placeholders go everywhere whole.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = jax.tree_util.keystr(path, simple=True, separator=paths.SEPARATOR).split(paths.SEPARATOR)
        for start in range(len(parts)):
            names = axes.get(paths.SEPARATOR.join(parts[start:]))
            if names is not None and len(names) == len(leaf.shape):
                return NamedSharding(mesh, parameter_spec(names, tuple(leaf.shape), mesh, preset))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over every axis that takes a share of the batch."""
    return NamedSharding(mesh, PartitionSpec(meshes.BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def activation_rule(mesh: Mesh) -> Callable[[jax.Array, tuple[str | None, ...]], jax.Array]:
    """For `axes.rule`: activations stay split over the batch wherever a layer names that axis."""

    def apply(x: jax.Array, names: tuple[str | None, ...]) -> jax.Array:
        if mesh.size == 1:
            return x
        spec = PartitionSpec(*(meshes.BATCH_AXES if name == "batch" else None for name in names))
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return apply
