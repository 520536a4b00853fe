"""How a pure function runs on a mesh: `jit` with shardings. (`pmap` is to stand beside it, behind the same methods.)"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from transformer_jax import axes, types
from transformer_jax.parallel import rules


class Jit:
    """Compiles functions for one mesh and brings batches onto it."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.batch = rules.batch_sharding(mesh)
        self.replicated = rules.replicated(mesh)
        self._rule = rules.activation_rule(mesh)

    def compile(
        self, function: Callable[..., Any], *, inputs: Any = None, outputs: Any = None, donate: Sequence[int] = ()
    ) -> Any:
        """`jit(function)` with activations pinned by the rules of the mesh. Shardings are as `jit` takes them."""

        @functools.wraps(function)
        def on_mesh(*args: Any) -> Any:
            with axes.rule(self._rule):
                return function(*args)

        return jax.jit(on_mesh, in_shardings=inputs, out_shardings=outputs, donate_argnums=tuple(donate))

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The global batch of which this process holds its part, split over the devices along the leading axis."""
        return {name: jax.make_array_from_process_local_data(self.batch, value) for name, value in batch.items()}

    def scalar(self, value: float) -> jax.Array:
        """A float32 number on every device."""
        return jax.device_put(np.float32(value), self.replicated)

    def check_batch(self, batch_size: int) -> None:
        """`InputError` when a global batch does not divide over the devices."""
        ways = int(np.prod([self.mesh.shape[axis] for axis in self.batch.spec[0]]))
        if batch_size % ways:
            near = [max(ways, batch_size // ways * ways), (batch_size // ways + 1) * ways]
            raise types.InputError(
                f"The batch must divide over the devices that share it: {batch_size} examples over {ways} devices."
                f" Take {' or '.join(map(str, dict.fromkeys(near)))}."
            )
