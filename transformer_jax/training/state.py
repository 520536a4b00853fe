"""What a run is made of: the arrays the step changes, and the clock that counts them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax import paths, types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything the compiled step reads and writes: plain arrays in plain containers, donated as a whole.

    As any pytree it may also hold what stands for its arrays: shapes, shardings, paths.
    """

    step: Any
    """int32 scalar: how many steps have been taken."""
    params: Any
    optimizer: Any
    """The state of the optax optimizer."""
    average: Any
    """The Polyak average of `params`, or None."""
    key: Any
    """Raw key data. The key of a step is this one folded with `step`, so nothing random has to be carried along."""


@dataclasses.dataclass
class Clock:
    """Where a run stands, on the host. It is saved beside the state, and one without the other means nothing."""

    step: int = 0
    examples: int = 0
    """Examples consumed: the global position in the data, whatever the batch size was."""
    evaluated: bool = False
    """Whether the evaluations due at `step` have been done."""
    skipped: int = 0
    """Bad examples that others stood in for: of those this process read, in a checkpoint of all."""
    goodput: dict[str, float] = dataclasses.field(default_factory=dict)
    """Where the time went until here (`goodput.Goodput.totals`), over all processes that worked on the run."""

    def advance(self, batch_size: int, skipped: int = 0) -> None:
        self.step += 1
        self.examples += batch_size
        self.skipped += skipped
        self.evaluated = False


def create(
    params: Any, optimizer: optax.GradientTransformation, *, key: jax.Array, average: bool = False
) -> TrainState:
    """The state before the first step. Call it inside `jit`, so that it is born sharded."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizer.init(params),
        average=jax.tree.map(jnp.copy, params) if average else None,
        key=jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key,
    )


def flatten(tree: Any) -> types.FlatTree:
    """Leaves by plain path (`params/head/kernel`, `optimizer/0/mu/head/kernel`, `step`), optax containers included."""
    return {name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def unflatten(flat: types.FlatTree, like: Any) -> Any:
    """The leaves of `flat` in the containers of `like`."""
    named, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(structure, [flat[name(path)] for path, _ in named])


def name(path: tuple[Any, ...]) -> str:
    """A key path of JAX as a plain one."""
    return jax.tree_util.keystr(path, simple=True, separator=paths.SEPARATOR)
