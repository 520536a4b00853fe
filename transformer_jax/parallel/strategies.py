"""How a pure function of global arrays is run on a mesh.

`Jit` lets the compiler split the program: functions say where their arguments and results lie, XLA inserts the
communication. It is the default, and the same on one device as on a thousand. Another strategy offers the same methods.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from transformer_jax import axes
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import rules


@dataclasses.dataclass(frozen=True)
class Jit:
    """`jax.jit` with `NamedSharding`s on one mesh."""

    mesh: Mesh

    @property
    def batch(self) -> NamedSharding:
        """Where batches lie: their examples spread over the devices."""
        return rules.batch(self.mesh)

    @property
    def replicated(self) -> NamedSharding:
        """Where scalars and metrics lie: on every device."""
        return rules.replicated(self.mesh)

    def compile(
        self, function: Callable[..., Any], *, inputs: Any = None, outputs: Any = None, donate: tuple[int, ...] = ()
    ) -> Any:
        """`function` as a jitted one; nothing is compiled before it is called or lowered.

        `inputs` is a tuple of shardings, one tree (or prefix of one) an argument; `outputs` is one of the result, which
        is born there: a state too large for one device is never whole anywhere. Arguments in `donate` are given up.
        """

        @functools.wraps(function)
        def on_mesh(*args: Any) -> Any:
            with axes.placed(rules.Placement(self.mesh)):
                return function(*args)

        where = {"in_shardings": inputs, "out_shardings": outputs}
        given = {key: value for key, value in where.items() if value is not None}
        return jax.jit(on_mesh, donate_argnums=donate, **given)

    def put(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's part of a batch (all of it, where there is one process) as part of global arrays."""
        return {name: self._place(np.asarray(array), self.batch) for name, array in local.items()}

    def scalar(self, value: float | int) -> jax.Array:
        """A float32 number on every device, such as the learning rate of a step."""
        return self._place(np.asarray(value, np.float32), self.replicated)

    def check_batch(self, batch_size: int) -> None:
        """`InputError` unless a global batch of that size divides evenly over the devices."""
        meshes.check_batch(batch_size, self.mesh)

    def _place(self, array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        """An explicit transfer, so that it passes a transfer guard."""
        if array.ndim and sharding.spec:
            self.check_batch(len(array) * jax.process_count())
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, array)
