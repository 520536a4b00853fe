"""A small ViT through the project's own state, step and optimizer on any mesh: what tests of placement compile."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import axes, models
from transformer_jax.metrics import losses
from transformer_jax.models import functional
from transformer_jax.optim import optimizers
from transformer_jax.parallel import mesh as meshes
from transformer_jax.parallel import placement, rules
from transformer_jax.training import state as states
from transformer_jax.training import step as steps

BATCH, SIDE, CLASSES = 16, 16, 16
MODEL: dict[str, Any] = dict(
    variant=None, width=64, depth=2, heads=8, mlp_dim=128, patch=4, image_size=SIDE, num_classes=CLASSES, pool="gap",
    head_zero=False,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A preset on a mesh of so many devices, and what else a program depends on."""

    preset: str = "data"
    mesh: tuple[tuple[str, int], ...] | None = None
    devices: int = 8
    optimizer: str = "adamw"
    optimizer_state: str = "parameter"
    accumulate: int = 1
    model: tuple[tuple[str, Any], ...] = ()
    plain: bool = False
    """The layers as accelerators run them, not as a CPU does where it holds whole examples."""


class Plain(placement.Placement):
    """As if the devices were accelerators without a fused attention."""

    @property
    def hardware(self) -> axes.Hardware:
        return axes.Hardware("gpu", "none")


class Program:
    """The shardings and the step of a case."""

    def __init__(self, case: Case):
        self.model = functional.from_family("vit", **MODEL | dict(case.model))
        shape = None if case.mesh is None else dict(case.mesh)
        self.mesh = meshes.make(shape, jax.devices()[: case.devices], preset=case.preset)
        self.optimizer = optimizers.build(
            case.optimizer, self.model.abstract, stacks=self.model.stacks, weight_decay=0.1
        )
        placed = (Plain if case.plain else placement.Placement)(self.mesh, case.preset)
        abstract = jax.eval_shape(self._init, jax.random.key(0))
        rules.require_sharded(self.model.abstract, self.model.axes, self.mesh, case.preset)
        self.shardings = rules.shardings(
            abstract, self.model.axes, self.mesh, case.preset, optimizer_state=case.optimizer_state
        )
        self.abstract = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, self.shardings
        )
        batch, everywhere = rules.batch(self.mesh), rules.replicated(self.mesh)
        step = steps.make_train_step(self._loss, self.optimizer, accumulate=case.accumulate)
        self.jitted = jax.jit(
            within(placed, step),
            in_shardings=(self.shardings, batch, everywhere),
            out_shardings=(self.shardings, everywhere),
        )
        self.places = batch, everywhere

    @functools.cached_property
    def step(self) -> Any:
        """The compiled step: split over devices as ever, its arithmetic hardly optimised, which halves the time."""
        image = jax.ShapeDtypeStruct((BATCH, *self.model.config.image_shape), jnp.float32)
        label, rate = jax.ShapeDtypeStruct((BATCH,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        lowered = self.jitted.lower(self.abstract, {"image": image, "label": label}, rate)
        return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})

    def run(self, count: int = 2) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
        """Gradients of the first batch (clipped, by path), and the metrics of `count` steps."""
        params = parameters(self.model.config)
        state = jax.device_put(states.create(params, self.optimizer, key=jax.random.key(0)), self.shardings)
        history, grads, rng = [], {}, np.random.default_rng(0)
        for number in range(count):
            batch = {
                "image": rng.normal(size=(BATCH, *self.model.config.image_shape)).astype(np.float32),
                "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
            }
            batch, rate = jax.device_put((batch, np.float32(0.01)), self.places)
            state, metrics = self.step(state, batch, rate)
            history.append({name: float(value) for name, value in metrics.items()})
            if number == 0 and "mu" in state.optimizer:
                grads = {path: 10.0 * np.asarray(mu) for path, mu in states.flatten(state.optimizer["mu"]).items()}
        return grads, history

    def _init(self, key: jax.Array) -> states.TrainState:
        return states.create(self.model.init(key), self.optimizer, key=key)

    def _loss(self, params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = self.model.apply(params, batch["image"], key=key)
        return losses.softmax_cross_entropy(logits, batch["label"]).mean(), {}


@functools.cache
def parameters(config: Any) -> Any:
    """New parameters of a model; how it is scanned or saved has no influence on them."""
    config = dataclasses.replace(config, scan=True, remat=None)
    model = functional.from_config(models.MODELS["vit"], config)
    init = jax.jit(model.init, compiler_options={"xla_backend_optimization_level": 0})
    return init(jax.random.key(0))


def within(placed: axes.Placement, function: Any) -> Any:
    """`function`, traced where its layers ask `placed`."""

    @functools.wraps(function)
    def inside(*args: Any) -> Any:
        with axes.placed(placed):
            return function(*args)

    return inside


@functools.cache
def program(case: Case) -> Program:
    """The program of a case, one for all tests."""
    return Program(case)


ALONE = Case(devices=1)


@functools.cache
def numbers(case: Case) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """What `run` gives."""
    return program(case).run()


def assert_equal(case: Case, alone: Case = ALONE) -> None:
    """Loss and every gradient of `case` are those of `alone` to 1e-6."""
    (grads, history), (expected, expected_history) = numbers(case), numbers(alone)
    assert grads.keys() == expected.keys() and len(grads) > 20
    for path, grad in grads.items():
        np.testing.assert_allclose(grad, expected[path], atol=1e-6, err_msg=path)
    for step, metrics in enumerate(history):
        assert metrics["stop"] == 0.0
        np.testing.assert_allclose(metrics["loss"], expected_history[step]["loss"], atol=1e-6)
        np.testing.assert_allclose(metrics["grad_norm"], expected_history[step]["grad_norm"], rtol=1e-5)
