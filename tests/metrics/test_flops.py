"""Counted operations equal the formulas; hardware that is not known has no peak."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from transformer_jax.metrics import flops


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def layer(x, params):
    query, key, value, out, up, down = params
    q, k, v = (jnp.einsum("bnd,dhe->bnhe", x, w) for w in (query, key, value))
    weights = jax.nn.softmax(jnp.einsum("bqhe,bkhe->bhqk", q, k))
    x = x + jnp.einsum("bqhe,hed->bqd", jnp.einsum("bhqk,bkhe->bqhe", weights, v), out)
    return x + jax.nn.gelu(x @ up) @ down


def encoder(x, params, remat=False):
    body = jax.checkpoint(layer) if remat else layer
    return jax.lax.scan(lambda x, p: (body(x, p), None), x, params)[0]


def arguments(layers, width, heads, mlp, tokens, batch):
    each = width // heads
    inward, outward = shape(layers, width, heads, each), shape(layers, heads, each, width)
    return shape(batch, tokens, width), (
        *(inward,) * 3,
        outward,
        shape(layers, width, mlp),
        shape(layers, mlp, width),
    )


@pytest.mark.parametrize(
    ("layers", "width", "heads", "mlp", "tokens"),
    [(12, 192, 3, 768, 197), (12, 768, 12, 3072, 197), (24, 1024, 16, 4096, 577)],
)
def test_a_scanned_encoder_of_vit_shapes_is_counted_as_the_formula_says(layers, width, heads, mlp, tokens):
    batch = 8
    x, params = arguments(layers, width, heads, mlp, tokens, batch)
    expected = layers * batch * (2 * tokens * (4 * width**2 + 2 * width * mlp) + 4 * tokens**2 * width)
    assert flops.of(encoder, x, params) == expected
    assert flops.of(jax.jit(lambda x, p: encoder(x, p, remat=True)), x, params) == expected


def test_vit_b16_is_the_17_6_gigaflops_a_multiply_add_each_of_the_papers():
    """DeiT (2012.12877) gives 17.6 G multiply-adds for B/16 at 224 pixels, patches and head included."""
    x, params = arguments(12, 768, 12, 3072, 197, 1)
    ends = 2 * (196 * 16 * 16 * 3 * 768 + 768 * 1000)
    assert (flops.of(encoder, x, params) + ends) / 2 == pytest.approx(17.6e9, rel=0.01)


def test_a_gradient_costs_three_times_the_forward_pass_and_remat_four_times():
    x, params = arguments(2, 8, 2, 16, 5, 3)
    forward = flops.of(encoder, x, params)

    def loss(x, params, remat):
        return encoder(x, params, remat).sum()

    def step(remat):
        return flops.of(lambda x, p: jax.grad(loss, argnums=(0, 1))(x, p, remat), x, params)

    assert step(False) == 3 * forward
    assert 3 * forward < step(True) <= 4 * forward


def test_convolutions_count_groups_and_strides():
    def convolve(x, kernel, groups):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    x = shape(2, 8, 8, 6)
    assert flops.of(lambda x, k: convolve(x, k, 1), x, shape(2, 2, 6, 4)) == 2 * (2 * 4 * 4 * 4) * (2 * 2 * 6)
    assert flops.of(lambda x, k: convolve(x, k, 2), x, shape(2, 2, 3, 4)) == 2 * (2 * 4 * 4 * 4) * (2 * 2 * 3)


def test_custom_derivatives_conditions_loops_and_shards_are_entered():
    square = shape(4, 4)
    product = 2 * 4**3

    @jax.custom_vjp
    def custom(x):
        return x @ x

    custom.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    assert flops.of(custom, square) == product
    assert flops.of(jax.grad(lambda x: custom(x).sum()), square) == 3 * product
    assert flops.of(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), square) == 2 * product
    assert flops.of(lambda x: jax.lax.fori_loop(0, 5, lambda _, x: x @ x, x), square) == 5 * product

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    assert flops.of(sharded, shape(16, 4), square) == 2 * 16 * 4 * 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("cpu", None),
        ("TPU v9", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks(kind, expected):
    assert flops.peak(kind) == expected


def test_utilisation_of_a_device_without_a_peak_is_no_number():
    assert flops.utilisation(1e12, 1.0) is None


def test_utilisation_is_over_all_devices(monkeypatch):
    monkeypatch.setattr(flops, "peak", lambda kind: 100.0)
    assert flops.utilisation(400, 2.0, jax.devices()[:4]) == 0.5
