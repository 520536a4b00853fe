"""Connections between the CPU devices of several processes, made while all are there.

gloo, which carries collectives between CPUs, connects a group of devices when the first program that needs the group
runs, and gives up after 30 seconds: less than one process may compile while another has found the program in its cache.
Once connected, processes wait for each other in a collective for as long as they live.
"""

import itertools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer_jax.parallel import multihost

_connected: set[frozenset[frozenset[int]]] = set()


def connect(mesh: Mesh) -> None:
    """Connect what any set of axes of `mesh` spreads over processes; nothing for one process or accelerators.

    All processes must call it with the same meshes in the same order: after they have compared their settings.
    """
    if multihost.count() == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    axes = [axis for axis in mesh.axis_names if mesh.shape[axis] > 1]
    choices = [some for length in range(1, len(axes) + 1) for some in itertools.combinations(axes, length)]
    new = [some for some in choices if _groups(mesh, some) not in _connected]
    if not new:
        return
    multihost.barrier("before devices are connected")

    def meet(x: jax.Array) -> jax.Array:
        for some in new:
            x = jax.lax.pmax(x, some)
        return x

    everywhere = PartitionSpec()
    program = jax.jit(jax.shard_map(meet, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False))
    one = jax.make_array_from_callback((), NamedSharding(mesh, everywhere), lambda _: np.ones((), np.float32))
    jax.block_until_ready(program(one))
    _connected.update(_groups(mesh, some) for some in new)


def processes() -> None:
    """Connect what `jax.experimental.multihost_utils` spreads over processes: the first device of each, the second."""
    if multihost.count() == 1 or jax.default_backend() != "cpu":
        return
    by_process = np.array(jax.devices()).reshape(jax.process_count(), -1)
    connect(Mesh(by_process, ("processes", "local_devices")))


def _groups(mesh: Mesh, axes: tuple[str, ...]) -> frozenset[frozenset[int]]:
    """The groups of devices that differ along `axes` only."""
    where = [mesh.axis_names.index(axis) for axis in axes]
    last = np.moveaxis(mesh.devices, where, range(-len(where), 0))
    rows = last.reshape(-1, int(np.prod([mesh.shape[axis] for axis in axes])))
    return frozenset(frozenset(device.id for device in row) for row in rows)
