"""What is compiled: model, optimizer and mesh, joined into `init`, `step`, `predict` and `features`.

Runs that differ in data, length, learning rate or seed share one program: all of those are arguments.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer_jax import axes, paths, types
from transformer_jax.data import field_ops, pipeline
from transformer_jax.experiment import sections
from transformer_jax.metrics import flops, losses
from transformer_jax.models import functional
from transformer_jax.optim import masks, optimizers
from transformer_jax.parallel import memory, mesh, rules, strategies
from transformer_jax.training import compilation, mixing, state, step

PixelRange = field_ops.PixelRange


class Program:
    """The compiled functions of an experiment.

    `pixel_range` is where the model wants pixels, such as (-1, 1), or two tuples of one number a channel: they travel
    as uint8 and are scaled on the device. `None` leaves them as they are. `devices` are those of the mesh, all there
    are by default.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        pixel_range: PixelRange | None,
        *,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.settings = settings = sections.settled(settings)
        self.pixel_range = pixel_range
        self.model = functional.from_family(**settings["model"])
        self.optimizer = optimizers.build(
            abstract_params=self.model.abstract, stacks=self.model.stacks, **settings["optim"]
        )
        parallel = settings["parallel"]
        self.mesh = mesh.make(parallel["mesh"], devices, across=parallel["across"], preset=parallel["rules"])
        self.strategy = strategies.STRATEGIES[parallel["strategy"]](self.mesh, parallel["rules"])
        abstract = jax.eval_shape(self._create, jax.random.key(0), self.model.abstract)
        rules.require_sharded(self.model.abstract, self.model.axes, self.mesh, parallel["rules"])
        at_work = rules.shardings(
            abstract,
            self.model.axes,
            self.mesh,
            parallel["rules"],
            optimizer_state=parallel["optimizer_state"],
        )
        self._at_work = self.shardings = at_work
        if parallel["offload"] == "optimizer":
            self.shardings = dataclasses.replace(at_work, optimizer=memory.on_host(at_work.optimizer))
        self.abstract: state.TrainState = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, self.shardings
        )
        self._compile()

    def _compile(self) -> None:
        """Wrap the pure functions for the mesh. Nothing is compiled before its first call."""
        train = self.settings["train"]
        train_step = step.make_train_step(
            self.loss,
            self.optimizer,
            accumulate=train["accumulate"],
            average_decay=train["average"],
            nonfinite=train["nonfinite"],
            over_devices=self.strategy.over_devices,
        )
        here, batch, everywhere = self.shardings, self.strategy.batch, self.strategy.replicated
        self.init = self.strategy.compile(self._init, outputs=here)
        self.init_with = self.strategy.compile(self._create, inputs=(None, here.params), outputs=here)
        self.step = self.strategy.compile(
            compilation.traced_once(self._fetched(train_step), "The training step"),
            inputs=(here, batch, everywhere),
            outputs=(here, everywhere),
            donate=(0,),
        )
        forward = functools.partial(self.strategy.compile, inputs=(here.params, batch), outputs=everywhere, rows=True)
        self.predict = forward(compilation.traced_once(self._predict, "The evaluation step"))
        self.features = forward(self._features)

    def _init(self, key: jax.Array) -> state.TrainState:
        model_key, run_key = jax.random.split(key)
        return self._create(run_key, self.model.init(model_key))

    def _create(self, key: jax.Array, params: Any) -> state.TrainState:
        return state.create(params, self.optimizer, key=key, average=self.settings["train"]["average"] is not None)

    def _fetched(self, train_step: step.Step) -> step.Step:
        """`train_step` with the optimizer's state brought from where it waits between steps."""
        if self.settings["parallel"]["offload"] == "none":
            return train_step

        @functools.wraps(train_step)
        def fetched(state: state.TrainState, batch: types.Batch, learning_rate: jax.Array) -> Any:
            optimizer = jax.device_put(state.optimizer, self._at_work.optimizer)
            return train_step(dataclasses.replace(state, optimizer=optimizer), batch, learning_rate)

        return fetched

    def loss(self, params: Any, batch: types.Batch, key: jax.Array) -> tuple[Float[Array, ""], types.Metrics]:
        """The training objective: a mean over the examples of a batch."""
        train = self.settings["train"]
        dropout_key, mix_key = jax.random.split(key)
        image, label = self.scale(batch["image"]), batch["label"]
        if train["mixup"] or train["cutmix"]:
            target = label if label.ndim == 2 else jax.nn.one_hot(label, self.settings["model"]["num_classes"])
            image, label = mixing.mix(
                image,
                target,
                mix_key,
                mixup=train["mixup"],
                cutmix=train["cutmix"],
                per_example=train["mix_per_example"],
                switch=train["mix_switch"],
            )
        params = masks.stop_gradient(params, self.settings["optim"]["freeze"], self.model.stacks)
        logits = self.model.apply(params, image, key=dropout_key)
        each = losses.LOSSES[train["loss"]](logits, label, label_smoothing=train["label_smoothing"])
        return each.mean(), {}

    def scale(self, image: jax.Array) -> jax.Array:
        """Pixels as float32 in the range the model wants; pixels that are float already are left alone."""
        if self.pixel_range is None or image.dtype != jnp.uint8:
            return image.astype(jnp.float32)
        # Computed in float64; (1, ..., channels or 1), since arrays of different ranks do not mix here.
        low, high = (np.reshape(edge, (1,) * (image.ndim - 1) + (-1,)) for edge in self.pixel_range)
        return image.astype(jnp.float32) * np.float32((high - low) / 255) + np.float32(low)

    def check(
        self, data: pipeline.Train | pipeline.Evaluate, where: str, *, classes: bool = True, rows: bool = False
    ) -> None:
        """`InputError` unless these examples are what the model takes: images, range of pixels, the form of the labels
        (`rows` of classes, or one class each) and, where its whole head is used (`classes`), their number."""
        config = self.model.config
        if classes:
            self._check_classes(data, where)
        self._check_labels(data, where, rows)
        if data.image_shape != config.image_shape:
            raise types.InputError(
                f"Images must have the shape the model takes: config.{where}.preprocess makes (height, width, channels)"
                f" {data.image_shape}, the model takes {config.image_shape}. Change the sizes there, or"
                " model.image_size and model.channels."
            )
        if data.pixel_range != self.pixel_range:
            raise types.InputError(
                f"Pixels must lie where the model learns them: config.{where}.preprocess ends in {data.pixel_range},"
                f" config.data.preprocess in {self.pixel_range}. End both in the same value_range or normalize."
            )

    def _check_classes(self, data: pipeline.Train | pipeline.Evaluate, where: str) -> None:
        classes = self.model.config.num_classes
        if data.num_classes != classes:
            raise types.InputError(
                f"The model must have a class for each label: it has {classes}, config.{where} has {data.num_classes}."
                " Judge it on the classes it is trained on."
            )

    def _check_labels(self, data: pipeline.Train | pipeline.Evaluate, where: str, rows: bool) -> None:
        classes = self.model.config.num_classes
        forms = {(): "an integer", (classes,): "a row of classes"}
        allowed = list(forms) if isinstance(data, pipeline.Train) else [(classes,) if rows else ()]
        if data.label_shape not in allowed:
            remedy = f"End it in multihot({classes})" if rows else "Leave onehot out, or give it the number of classes"
            raise types.InputError(
                f"A label is {' or '.join(forms[form] for form in allowed)} here: config.{where}.preprocess makes"
                f" labels of shape {data.label_shape}, there are {classes} classes. {remedy}."
            )

    def _predict(self, params: Any, batch: types.Batch) -> Float[Array, "batch classes"]:
        return self.model.apply(params, self.scale(batch["image"]))

    def _features(self, params: Any, batch: types.Batch) -> Float[Array, "batch features"]:
        return self.model.apply(params, self.scale(batch["image"]), method="features")

    def fake_batch(self, batch_size: int, *, label_shape: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
        """Random pixels and labels of the right shapes, the same every time; labels are rows where `label_shape` is."""
        config, rng = self.model.config, np.random.default_rng(0)
        label = rng.integers(0, config.num_classes, batch_size).astype(np.int32)
        return {
            "image": rng.integers(0, 256, (batch_size, *config.image_shape), np.uint8),
            "label": np.eye(config.num_classes, dtype=np.float32)[label] if label_shape else label,
        }

    def flops(self, kind: str, batch_size: int) -> int:
        """Model FLOPs of one `train` step or one `predict`, counted in its program; `remat` repeats are no work.

        In its program for a CPU: others hold kernels of attention, which cannot be looked into.
        """
        shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in self.fake_batch(batch_size).items()}
        with axes.placed(axes.Alone(axes.Hardware("cpu", "cpu"))):
            forward = flops.of(self._predict, self.abstract.params, shapes)
            if kind == "predict" or self.settings["model"].get("remat") is not None:
                return forward if kind == "predict" else 3 * forward
            step_of = jax.value_and_grad(self.loss, has_aux=True)
            return flops.of(step_of, self.abstract.params, shapes, jax.random.key(0))

    def place(self, flat: types.FlatTree) -> Any:
        """Parameters by neutral path (one leaf a layer) as the sharded tree of the program."""
        params = paths.unflatten(paths.stack(flat, self.model.stacks, np.stack))
        return jax.tree.map(memory.placed, params, self.shardings.params)

    def neutral(self, params: Any) -> types.FlatTree:
        """The inverse of `place`: numpy leaves by neutral path, on every process."""
        return paths.unstack(paths.flatten(jax.tree.map(memory.fetched, params)), self.model.stacks)
