"""A module as pure functions of plain dictionaries: the bridge from Flax NNX to the hot loop (DESIGN.md, decision 1).

Outside `models` parameters are nested dictionaries of arrays, never Flax objects. The module is taken apart once;
a traced `apply` puts it together again around tracers, so nothing of Flax runs in a compiled step.
"""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from transformer_jax import models, paths, types
from transformer_jax.nn import stack

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Functional:
    """`init` and `apply` of one module, with what is known of its parameters before there are any.

    Compared and hashed by identity, so it may be a static argument of `jax.jit`.
    """

    family: models.Family
    config: Any
    abstract: Params
    """Nested shapes and dtypes of the parameters."""
    axes: dict[str, tuple[str, ...]]
    """Words of `axes.py` for every dimension of every parameter, by path."""
    stacks: dict[str, int]
    """Paths whose parameters carry a leading `layers` axis, with its size."""
    _graphs: dict[bool, Any] = dataclasses.field(repr=False)
    _structure: Any = dataclasses.field(repr=False)
    _rest: Any = dataclasses.field(repr=False)

    def init(self, key: jax.Array) -> Params:
        """New parameters. May be compiled: `jax.jit(f.init, out_shardings=...)`."""
        return _plain(self.family.model(self.config, rngs=nnx.Rngs(params=_typed(key), dropout=0)))

    def apply(self, params: Params, *inputs: Any, key: jax.Array | None = None, method: str = "__call__") -> Any:
        """`method` of the module with these parameters: evaluation without a key, training (dropout) with one."""
        state = jax.tree.unflatten(self._structure, _in_order(params, self.abstract))
        module = nnx.merge(self._graphs[key is None], state, jax.tree.map(_blank, self._rest))
        if key is not None:
            nnx.reseed(module, policy="match_shape", dropout=_typed(key))
        return getattr(module, method)(*inputs)


def from_family(name: str, **config: Any) -> Functional:
    """The model `name` of `models.MODELS` with the keyword arguments of its config."""
    family = models.MODELS[paths.one_of("The model", name, models.MODELS)]
    known = list(inspect.signature(family.config).parameters)
    for word in config:
        if word not in known:
            raise types.InputError(f"The model {name} has no setting {word!r}.{paths.did_you_mean(word, known)}")
    return from_config(family, family.config(**config))


def from_config(family: models.Family, config: Any) -> Functional:
    """The model of `family` with this config."""
    module = nnx.eval_shape(lambda: family.model(config, rngs=nnx.Rngs(params=0, dropout=0)))
    graphs, state, rest = {}, None, None
    for deterministic in (False, True):
        view = nnx.view(module, deterministic=deterministic, raise_if_not_found=False)  # not every model drops out
        graphs[deterministic], state, rest = nnx.split(view, nnx.Param, ...)
    stacks = {
        paths.SEPARATOR.join(map(str, path)): count
        for path, part in nnx.iter_modules(module)
        if (count := stack.depth(part))
    }
    words = {
        paths.SEPARATOR.join(map(str, path)): param.get_metadata()["axes"] for path, param in nnx.to_flat_state(state)
    }
    abstract = nnx.to_pure_dict(state)
    return Functional(
        family, config, abstract, words, stacks, _graphs=graphs, _structure=jax.tree.structure(state), _rest=rest
    )


def _plain(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def _in_order(params: Params, abstract: Params) -> list[Any]:
    """The leaves of `params`, which must have the structure of `abstract`."""
    given, expected = jax.tree.structure(params), jax.tree.structure(abstract)
    if given != expected:
        ours, theirs = set(paths.flatten(abstract)), set(paths.flatten(params))
        raise types.InputError(
            f"The parameters must be those of the model: missing {sorted(ours - theirs)},"
            f" unknown {sorted(theirs - ours)}. Convert them, or build the model they belong to."
        )
    return jax.tree.leaves(params)


def _typed(key: jax.Array) -> jax.Array:
    """A key that may be given as its raw numbers, as it stands in a training state."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _blank(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """What a random stream holds before it is seeded."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)
