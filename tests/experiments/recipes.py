"""Experiment files as the tests of their rows use them: resolved, traced at full size, stepped once when shrunk."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np

from transformer_jax import config, experiment, protocol
from transformer_jax.data import ops
from transformer_jax.optim import schedules

ROOT = Path(__file__).parents[2] / "experiments"
SMALL = {"depth": 1, "width": 16, "heads": 2, "mlp_dim": 32}


def load(file, **arguments):
    """`load("vit/pretrain.py", model="B/16")`, resolved."""
    words = ",".join(f"{key}={value}" for key, value in arguments.items())
    return experiment.resolve(config.load(f"{ROOT / file}:{words}"))


@functools.cache
def closed_loop(file, **arguments):
    """The protocol of a file, resolved."""
    words = ",".join(f"{key}={value}" for key, value in arguments.items())
    return protocol.resolve(config.load(f"{ROOT / file}:{words}"))


def get(settings, *names):
    """The values at these dotted paths."""
    flat = config.dotted(settings)
    return tuple(flat[name] for name in names)


def length(settings, examples=None):
    """Steps of the run on a data set of so many examples."""
    sizes = {"batch_size": settings["data"]["batch_size"], "epoch_examples": examples}
    return schedules.steps(settings["train"]["total"], **sizes)


def rate(settings, step, examples=None):
    """The learning rate of a step."""
    sizes = {"batch_size": settings["data"]["batch_size"], "epoch_examples": examples}
    return schedules.build(**settings["schedule"], total_steps=length(settings, examples), **sizes)(step)


def stages(text):
    """The op names of a preprocessing string, which must parse."""
    assert all(ops.parse(text))
    return [stage.strip() for stage in text.split("|")]


def require_table_4(settings):
    """What all of fine-tuning has in common."""
    assert get(settings, "optim.name", "optim.momentum", "optim.nesterov") == ("sgd", 0.9, False)
    assert get(settings, "optim.weight_decay", "optim.clip_norm") == (0.0, 1.0)
    assert get(settings, "data.batch_size", "schedule.name", "schedule.end") == (512, "cosine", 0.0)
    assert get(settings, "train.loss", "train.mixup", "train.label_smoothing") == ("softmax", 0.0, 0.0)
    assert get(settings, "init_from.head", "model.head_zero") == ("reset", True)


def alike(settings, classes):
    """The settings with numbers made equal that change no shape and no operation: fewer programs are compiled."""
    settings = dict(
        settings,
        model=dict(settings["model"], num_classes=classes),
        optim=dict(settings["optim"], weight_decay=0.1 if settings["optim"]["weight_decay"] else 0.0),
        train=dict(settings["train"], mixup=0.2 if settings["train"]["mixup"] else 0.0),
    )
    if "head_bias" in settings["model"]:
        settings["model"]["head_bias"] = 0.0
    return settings


def trace(settings, classes, shared, *, own=False):
    """The program and the shapes of the metrics of a training step at full size; nothing is allocated or opened.

    With `own` no number of the recipe is made equal to that of others.
    """
    made = dict(settings, model=dict(settings["model"], num_classes=classes)) if own else alike(settings, classes)
    program = experiment.without_data(made, shared)
    if program not in _TRACED:
        size = settings["data"]["batch_size"]
        batch = {
            "image": jax.ShapeDtypeStruct((size, *program.model.config.image_shape), np.uint8),
            "label": jax.ShapeDtypeStruct((size,), np.int32),
        }
        after, metrics = jax.eval_shape(program.step, program.abstract, batch, jax.ShapeDtypeStruct((), np.float32))
        same = jax.tree.map(lambda old, new: (old.shape, old.dtype) == (new.shape, new.dtype), program.abstract, after)
        assert all(jax.tree.leaves(same))
        _TRACED[program] = metrics
    return program, _TRACED[program]


_TRACED = {}


def shrink(settings):
    """The recipe with a small model, small images and a batch of one example a device."""
    settings = alike(settings, 10)
    model = settings["model"]
    if model["name"] == "resnet":
        model.update(SMALL_RESNET)
    elif "+" in (model["variant"] or ""):  # a hybrid: the root leaves 8 x 8, four tokens
        model.update(SMALL, variant=None, stem=(1,), patch=4, image_size=32)
    elif model["variant"]:
        patch = int(model["variant"].partition("/")[2])
        model.update(SMALL, variant=None, patch=patch, image_size=2 * patch)
    else:
        model.update(SMALL)
    return dict(settings, data=dict(settings["data"], batch_size=jax.device_count()))


SMALL_RESNET = {"variant": None, "units": (1, 1), "width": 32, "image_size": 32}


def step(settings, shared):
    """The loss of one step of a shrunk recipe on fake data, at the rate of its first step."""
    program = experiment.without_data(settings, shared)
    batch = program.strategy.put(program.fake_batch(settings["data"]["batch_size"]))
    first = program.strategy.scalar(rate(settings, 1, 1_000_000))
    if program not in _COMPILED:
        lowered = program.step.lower(begun(program), batch, first)
        _COMPILED[program] = lowered.compile(compiler_options=_UNOPTIMISED)
    after, metrics = _COMPILED[program](begun(program), batch, first)
    assert int(after.step) == 1 and float(metrics["stop"]) == 0
    return float(metrics["loss"])


_COMPILED = {}
_UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Half the time to compile, for a program that runs once."""


def begun(program):
    """A state of random parameters and empty buffers, without compiling an initialisation."""
    rng = np.random.default_rng(0)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.abstract)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.02, leaf.shape).astype(leaf.dtype), zeros.params)
    return jax.tree.map(jax.device_put, dataclasses.replace(zeros, params=params), program.shardings)
