"""The bottleneck ResNet (He et al., 1512.03385 and 1603.05027) with standardised convolutions and group norms.

Units take factories: `conv(inputs, outputs, size=, stride=, rngs=)` and `norm(width, rngs=)`. Stages and units have the
names of the published checkpoints, `block1/unit1`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from transformer_jax import axes
from transformer_jax.nn import convolution, stack

WIDENING = 4
"""How many times wider a unit's output is than its 3x3 convolution."""


class PostActivation(nnx.Module):
    """`relu(x + norm(conv(...)))`: the unit of the hybrid ViT (2010.11929, section 3.1). Its last scale starts at 0."""

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        conv: Callable[..., nnx.Module],
        norm: Callable[..., nnx.Module],
        rngs: nnx.Rngs,
    ):
        outputs = WIDENING * width
        self.conv1, self.norm1 = conv(inputs, width, rngs=rngs), norm(width, rngs=rngs)
        self.conv2, self.norm2 = conv(width, width, size=3, stride=stride, rngs=rngs), norm(width, rngs=rngs)
        self.conv3, self.norm3 = conv(width, outputs, rngs=rngs), norm(outputs, scale=0.0, rngs=rngs)
        projects = inputs != outputs or stride != 1
        self.conv_proj = conv(inputs, outputs, stride=stride, rngs=rngs) if projects else None
        self.norm_proj = norm(outputs, rngs=rngs) if projects else None

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns embed"]:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        x = x if self.conv_proj is None or self.norm_proj is None else self.norm_proj(self.conv_proj(x))
        return jax.nn.relu(x + y)


class PreActivation(nnx.Module):
    """`x + conv(relu(norm(...)))`: the unit of Big Transfer (1912.11370), which projects what the first ReLU gives."""

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        conv: Callable[..., nnx.Module],
        norm: Callable[..., nnx.Module],
        rngs: nnx.Rngs,
    ):
        outputs = WIDENING * width
        self.norm1, self.conv1 = norm(inputs, rngs=rngs), conv(inputs, width, rngs=rngs)
        self.norm2, self.conv2 = norm(width, rngs=rngs), conv(width, width, size=3, stride=stride, rngs=rngs)
        self.norm3, self.conv3 = norm(width, rngs=rngs), conv(width, outputs, rngs=rngs)
        projects = inputs != outputs or stride != 1
        self.conv_proj = conv(inputs, outputs, stride=stride, rngs=rngs) if projects else None

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns embed"]:
        y = jax.nn.relu(self.norm1(x))
        x = x if self.conv_proj is None else self.conv_proj(y)
        y = jax.nn.relu(self.norm2(self.conv1(y)))
        y = jax.nn.relu(self.norm3(self.conv2(y)))
        return x + self.conv3(y)


class Root(nnx.Module):
    """A 7x7 convolution and a maximum over 3x3, both of stride 2; `norm` and ReLU stand between where it is given."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        conv: Callable[..., convolution.StdConv],
        norm: Callable[..., nnx.Module] | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(channels, width, size=7, stride=2, rngs=rngs)
        self.norm = None if norm is None else norm(width, rngs=rngs)

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns embed"]:
        x = self.conv(image)
        x = x if self.norm is None else jax.nn.relu(self.norm(x))
        return convolution.max_pool(x, padding=self.conv.padding)


class Stage(nnx.Module):
    """`units` units `unit1, unit2, ...` one after the other, the first with the stride."""

    def __init__(
        self, inputs: int, width: int, *, units: int, stride: int, unit: Callable[..., nnx.Module], rngs: nnx.Rngs
    ):
        self.units = units
        for number in range(1, units + 1):
            setattr(self, f"unit{number}", unit(inputs, width, stride=stride, rngs=rngs))
            inputs, stride = WIDENING * width, 1

    def __call__(
        self, x: Float[Array, "batch height width channels"], *, remat: str | None = None
    ) -> Float[Array, "batch rows columns embed"]:
        """`remat` names what the backward pass finds saved of a unit (`stack.REMAT`); `None` saves everything."""
        for number in range(1, self.units + 1):
            x = _run(getattr(self, f"unit{number}"), x, remat)
            x = axes.constrain(x, "batch", "height", "width", "embed")
        return x


class Body(nnx.Module):
    """An image to the map of its features: `root`, then the stages `block1, block2, ...`, each twice as wide.

    `units` counts the units of every stage. All stages but the first halve the map. The map has `outputs` channels.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        units: Sequence[int],
        root: Callable[..., nnx.Module],
        unit: Callable[..., nnx.Module],
        remat: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.stages, self.remat = len(units), remat
        self.root = root(channels, width, rngs=rngs)
        self.outputs = width
        for number, count in enumerate(units):
            stride, narrow = 1 if number == 0 else 2, width << number
            stage = Stage(self.outputs, narrow, units=count, stride=stride, unit=unit, rngs=rngs)
            setattr(self, f"block{number + 1}", stage)
            self.outputs = WIDENING * narrow

    def __call__(self, image: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns embed"]:
        x = self.root(image)
        for number in range(1, self.stages + 1):
            x = getattr(self, f"block{number}")(x, remat=self.remat)
        return x


def map_side(length: int, stages: int) -> int:
    """Rows (or columns) of the map that a body with padding `same` makes of so many rows of pixels."""
    return -(-length // map_step(stages))


def map_step(stages: int) -> int:
    """How many rows of pixels one row of the map stands for: 4 after the root, twice as many with every later stage."""
    return 4 << max(stages - 1, 0)


def _run(unit: Any, x: jax.Array, remat: str | None) -> jax.Array:
    """`unit(x)`, its insides worked out again in the backward pass as `remat` says."""
    if remat is None:
        return unit(x)
    graph, params = nnx.split(unit)
    again = jax.checkpoint(lambda params, x: nnx.merge(graph, params)(x), policy=stack.REMAT[remat])
    return again(params, x)
