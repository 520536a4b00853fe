"""How a pure function of global arrays is run on a mesh.

`Jit` lets the compiler split the program: functions say where their arguments and results lie, XLA inserts the
communication. It is the default, and the same on one device as on a thousand. `Pmap` splits the batch by hand: every
device runs the program of one device on its examples, and gradients are averaged. Both have the same methods.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from transformer_jax import axes, types
from transformer_jax.parallel import memory, rules
from transformer_jax.parallel import mesh as meshes

Gradients = Callable[..., Any]
_DEVICES = "devices"


@dataclasses.dataclass(frozen=True)
class Jit:
    """`jax.jit` with `NamedSharding`s on one mesh; `preset` names the rules that activations are placed by."""

    mesh: Mesh
    preset: str = "data"

    @property
    def batch(self) -> NamedSharding:
        """Where batches lie: their examples spread over the devices."""
        return rules.batch(self.mesh)

    @property
    def replicated(self) -> NamedSharding:
        """Where scalars and metrics lie: on every device."""
        return rules.replicated(self.mesh)

    def compile(
        self,
        function: Callable[..., Any],
        *,
        inputs: Any = None,
        outputs: Any = None,
        rows: bool = False,
        donate: tuple[int, ...] = (),
    ) -> Any:
        """`function` as a jitted one; nothing is compiled before it is called or lowered.

        `inputs` is a tuple of shardings, one tree (or prefix of one) an argument; `outputs` is one of the result, which
        is born there: a state too large for one device is never whole anywhere. `rows` says that the result has a row
        for every example of the batch. Arguments in `donate` are given up.
        """
        return self._jitted(self._placed(function, self.mesh), inputs, outputs, donate)

    def over_devices(self, gradients: Gradients) -> Gradients:
        """`gradients(params, batch, key)` of the whole batch, for use inside a compiled function."""
        return gradients

    def put(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's part of a batch (all of it, where there is one process) as part of global arrays."""
        return {name: self._place(np.asarray(array), self.batch) for name, array in local.items()}

    def scalar(self, value: float | int) -> jax.Array:
        """A float32 number on every device, such as the learning rate of a step."""
        return self._place(np.asarray(value, np.float32), self.replicated)

    def check_batch(self, batch_size: int) -> None:
        """`InputError` unless a global batch of that size divides evenly over the devices."""
        meshes.check_batch(batch_size, self.mesh)

    def _placed(self, function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
        @functools.wraps(function)
        def on_mesh(*args: Any) -> Any:
            with axes.placed(rules.Placement(mesh, self.preset)):
                return function(*args)

        return on_mesh

    def _jitted(self, function: Callable[..., Any], inputs: Any, outputs: Any, donate: tuple[int, ...]) -> Any:
        where = {"in_shardings": inputs, "out_shardings": outputs}
        given = {key: value for key, value in where.items() if value is not None}
        return jax.jit(function, donate_argnums=donate, **given)

    def _place(self, array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        """An explicit transfer, so that it passes a transfer guard."""
        if sharding.is_fully_addressable:
            if array.ndim and sharding.spec:
                self.check_batch(len(array))
            return jax.device_put(array, sharding)
        if not sharding.spec:
            return memory.placed(array, sharding)
        examples = len(array) * _readers(self.mesh)
        self.check_batch(examples)
        with jax.transfer_guard("allow"):
            return jax.make_array_from_process_local_data(sharding, array, (examples, *array.shape[1:]))


@functools.lru_cache(maxsize=8)
def _readers(mesh: Mesh) -> int:
    """Into how many equal parts the processes that share a mesh cut a batch: asked for every batch, found once."""
    return meshes.readers(mesh).count


@dataclasses.dataclass(frozen=True)
class Pmap(Jit):
    """`jax.pmap`, data-parallel over the devices of one process, each of which holds every parameter.

    Numbers are those of `Jit` where nothing is drawn for an example: dropout and partners of mixup are each device's.
    """

    def __post_init__(self) -> None:
        others = [axis for axis in ("fsdp", "sequence", "tensor") if self.mesh.shape[axis] > 1]
        if self.preset != "data" or others:
            found = f"parallel.rules is {self.preset!r}" if self.preset != "data" else f"the mesh has {others[0]}"
            raise types.InputError(
                f"parallel.strategy='pmap' spreads examples and nothing else: {found}. Use rules='data' and a mesh of"
                " data alone, or strategy='jit'."
            )
        if jax.process_count() > 1:
            raise types.InputError(
                f"parallel.strategy='pmap' is for the devices of one process: there are {jax.process_count()}."
                " Use strategy='jit'."
            )

    def compile(
        self,
        function: Callable[..., Any],
        *,
        inputs: Any = None,
        outputs: Any = None,
        rows: bool = False,
        donate: tuple[int, ...] = (),
    ) -> Any:
        """As `Jit.compile`; an argument whose sharding is `batch` is cut, and the function runs on every part of it.

        A function that is given a batch returns `rows`, or what is the same on every device (see `over_devices`).
        """
        cut = [where is not None and where == self.batch for where in inputs or ()]
        if not any(cut):
            return super().compile(function, inputs=inputs, outputs=outputs, donate=donate)
        devices = list(self.mesh.devices.flat)
        alone = meshes.make({"data": 1}, devices[:1])
        each = jax.pmap(
            self._placed(function, alone),
            axis_name=_DEVICES,
            in_axes=tuple(0 if batch else None for batch in cut),
            out_axes=0 if rows else None,
            devices=devices,
        )

        @functools.wraps(function)
        def split(*args: Any) -> Any:
            parts = [jax.tree.map(self._part, arg) if batch else arg for arg, batch in zip(args, cut, strict=True)]
            result = each(*parts)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result) if rows else result

        return self._jitted(split, inputs, outputs, donate)

    def over_devices(self, gradients: Gradients) -> Gradients:
        """`gradients(params, batch, key)` averaged over the devices, each of which draws numbers of its own."""

        @functools.wraps(gradients)
        def averaged(params: Any, batch: Any, key: jax.Array) -> Any:
            return jax.lax.pmean(
                gradients(params, batch, jax.random.fold_in(key, jax.lax.axis_index(_DEVICES))), _DEVICES
            )

        return averaged

    def _part(self, x: jax.Array) -> jax.Array:
        return x.reshape(self.mesh.size, -1, *x.shape[1:])


STRATEGIES: dict[str, type[Jit]] = {"jit": Jit, "pmap": Pmap}
