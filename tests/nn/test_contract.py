"""What every layer promises: named axes, two dtypes, finite gradients for every parameter."""

import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transformer_jax import axes, nn
from transformer_jax.nn import attention, blocks, convolution, embeddings, linear, mlp, norms, pooling, residual

TOKENS, MAPS = (2, 5, 8), (2, 6, 8, 8)


def _block(cls, dtypes, rngs):
    mixer = attention.MultiHeadAttention(8, 2, kv_heads=1, qk_norm=True, rngs=rngs, **dtypes)
    feed = mlp.GatedMLP(8, 16, rngs=rngs, **dtypes)
    norm = functools.partial(norms.RMSNorm, 8, **dtypes)
    return cls(mixer, feed, norm=norm, scale=functools.partial(blocks.LayerScale, 8, **dtypes), rngs=rngs)


def _parts(dtypes):
    """Factories of a convolution and of a norm whose scale is not zero: behind one nothing gets a gradient."""

    def norm(width, *, scale=1.0, rngs):
        return norms.GroupNorm(width, groups=2, scale=scale or 0.5, rngs=rngs, **dtypes)

    return dict(conv=functools.partial(convolution.StdConv, **dtypes), norm=norm)


def _unit(cls, dtypes, rngs):
    return cls(8, 4, stride=2, rngs=rngs, **_parts(dtypes))


def _stage(dtypes, rngs):
    unit = functools.partial(residual.PreActivation, **_parts(dtypes))
    return residual.Stage(8, 4, units=2, stride=1, unit=unit, rngs=rngs)


def _body(dtypes, rngs):
    root = functools.partial(residual.Root, **_parts(dtypes))
    unit = functools.partial(residual.PostActivation, **_parts(dtypes))
    return residual.Body(8, 4, units=(1, 1), root=root, unit=unit, rngs=rngs)


LAYERS = {
    linear.Dense: (lambda d, r: linear.Dense((8,), (2, 3), axes=("embed", "heads", "head_dim"), rngs=r, **d), TOKENS),
    norms.LayerNorm: (lambda d, r: norms.LayerNorm(8, rngs=r, **d), TOKENS),
    norms.RMSNorm: (lambda d, r: norms.RMSNorm(8, rngs=r, **d), TOKENS),
    attention.MultiHeadAttention: (lambda d, r: attention.MultiHeadAttention(8, 2, rngs=r, **d), TOKENS),
    mlp.MLP: (lambda d, r: mlp.MLP(8, 16, rngs=r, **d), TOKENS),
    mlp.GatedMLP: (lambda d, r: mlp.GatedMLP(8, 16, rngs=r, **d), TOKENS),
    blocks.LayerScale: (lambda d, r: blocks.LayerScale(8, rngs=r, **d), TOKENS),
    blocks.PreNorm: (functools.partial(_block, blocks.PreNorm), TOKENS),
    blocks.PostNorm: (functools.partial(_block, blocks.PostNorm), TOKENS),
    blocks.Parallel: (functools.partial(_block, blocks.Parallel), TOKENS),
    embeddings.PatchEmbedding: (lambda d, r: embeddings.PatchEmbedding(8, (2, 2), rngs=r, **d), (2, 4, 6, 3)),
    pooling.AttentionPool: (lambda d, r: pooling.AttentionPool(8, 2, hidden=16, rngs=r, **d), TOKENS),
    convolution.StdConv: (lambda d, r: convolution.StdConv(8, 4, size=3, rngs=r, **d), MAPS),
    norms.GroupNorm: (lambda d, r: norms.GroupNorm(8, groups=2, rngs=r, **d), MAPS),
    residual.PostActivation: (functools.partial(_unit, residual.PostActivation), MAPS),
    residual.PreActivation: (functools.partial(_unit, residual.PreActivation), MAPS),
    residual.Root: (lambda d, r: residual.Root(8, 4, rngs=r, **_parts(d)), MAPS),
    residual.Stage: (_stage, MAPS),
    residual.Body: (_body, (2, 16, 24, 8)),
}
WITHOUT_PARAMETERS = {"StochasticDepth", "Token", "Mean"}
FLOAT32, MIXED = {"dtype": jnp.float32, "param_dtype": jnp.float32}, {"dtype": jnp.bfloat16, "param_dtype": jnp.float32}


def build(cls, dtypes=None):
    make, shape = LAYERS[cls]
    module = make(dtypes or FLOAT32, nnx.Rngs(params=0, dropout=1))
    return module, jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_every_layer_is_under_contract():
    found = set()
    for part in pkgutil.iter_modules(nn.__path__):
        module = importlib.import_module(f"transformer_jax.nn.{part.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, nnx.Module) and cls.__module__ == module.__name__ and not name.startswith("_"):
                found.add(cls)
    assert {cls.__name__ for cls in found - set(LAYERS)} == WITHOUT_PARAMETERS
    assert set(LAYERS) <= found


@pytest.mark.parametrize("cls", LAYERS)
def test_every_dimension_of_every_parameter_has_a_word(cls):
    abstract = nnx.eval_shape(lambda: LAYERS[cls][0](FLOAT32, nnx.Rngs(params=0, dropout=1)))
    params = nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    assert params
    for path, param in params:
        words = param.get_metadata()["axes"]
        assert len(words) == len(param.shape), path
        assert set(words) <= axes.WORDS, path


@pytest.mark.parametrize("cls", LAYERS)
def test_compute_is_bfloat16_when_asked_and_storage_stays_float32(cls):
    module, x = build(cls, MIXED)
    assert {param.dtype for _, param in nnx.to_flat_state(nnx.state(module, nnx.Param))} == {jnp.dtype(jnp.float32)}
    out = jax.eval_shape(module, x.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize("cls", LAYERS)
def test_every_parameter_gets_a_finite_gradient(cls):
    module, x = build(cls)
    graph, params, rest = nnx.split(nnx.view(module, deterministic=True, raise_if_not_found=False), nnx.Param, ...)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=jax.eval_shape(module, x).shape), jnp.float32)

    def loss(params):
        return jnp.sum(weights * nnx.merge(graph, params, rest, copy=True)(x))

    for path, grad in nnx.to_flat_state(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(grad[...]).all(), path
        if path[-2:] != ("key", "bias"):  # a bias of the keys moves all logits of a query alike
            assert float(jnp.abs(grad[...]).max()) > 0.0, path


@pytest.mark.parametrize("cls", LAYERS)
def test_arguments_are_at_most_two_positionals_and_rngs_come_last(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 2
    assert parameters[-1].name == "rngs" and parameters[-1].kind is inspect.Parameter.KEYWORD_ONLY
