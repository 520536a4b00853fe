"""A checkpoint as a function from images to logits, and to where the model looks."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from transformer_jax import paths, types
from transformer_jax.data import loading, ops
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import sections, weights
from transformer_jax.transfer import convert

# Settings of a model that every training chooses anew: its head, its regularisation, how it is run.
_CHOSEN = (
    *("num_classes", "head_zero", "head_bias", "pre_logits", "dropout", "stochastic_depth"),
    *("scan", "remat", "attention", "dtype", "param_dtype"),
)


class Predictor:
    """A checkpoint of ours, or weights of a published layout: model, preprocessing and classes come out of it.

    `preprocess` replaces the preprocessing: of a run that of its first evaluator, of other weights `published`'s.
    """

    def __init__(self, path: str, *, preprocess: str | None = None):
        source = weights.load(path)
        settings = _settings(source, preprocess)
        self._loss = settings["train"]["loss"]
        self.preprocess: str = preprocess or _judged(settings)["preprocess"]
        self.channels: int = settings["model"]["channels"]
        pixel_range = loading.plan(ops.parse(self.preprocess)).pixel_range
        alone = dict(settings, parallel=dataclasses.asdict(sections.Parallel(mesh={"data": 1})))
        self.program = programs.Program(alone, pixel_range, devices=jax.devices()[:1])
        self._params = self.program.place(_whole(source, self.program))
        names, classes = source.meta.get("class_names") or (), self.program.model.config.num_classes
        self.class_names = list(names) if len(names) == classes else [f"class {i}" for i in range(classes)]
        self._attention = self.program.strategy.compile(self._maps)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What logits [..., classes] say of the classes: of one among all, or of each by itself, as it was trained."""
        if self._loss == "sigmoid":
            return 1 / (1 + np.exp(-logits))
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)

    def logits(self, pixels: np.ndarray, *, batch_size: int) -> np.ndarray:
        """float32 [n, classes] for images [n, height, width, channels]: uint8, or float32 in the range of the model."""
        rows = []
        for start in range(0, len(pixels), batch_size):
            part = pixels[start : start + batch_size]
            padded = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), axis=0)])
            logits = self.program.predict(self._params, self.program.strategy.put({"image": padded}))
            rows.append(np.asarray(logits)[: len(part)])
        return np.concatenate(rows)

    def attention(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of one image [height, width, channels] the attention weights [layers, heads, length, length], and those
        [pools, length] with which its tokens become one vector: a row for each head of a MAP head, else one."""
        self.require_attention()
        found = self._attention(self._params, self.program.strategy.put({"image": image[None]}))
        layers, pooling = (np.asarray(part)[0] for part in found)
        return layers, pooling

    def require_attention(self) -> None:
        """`InputError` unless there is attention to be seen in this model."""
        family = self.program.model.family.model
        if not hasattr(family, "attention_maps"):
            name = self.program.settings["model"]["name"]
            raise types.InputError(
                f"Attention is drawn of a model that has attention: this one is of the family {name!r}."
                " Leave --attention out, or take the checkpoint of a ViT."
            )

    def _maps(self, params: Any, batch: types.Batch) -> tuple[jax.Array, jax.Array]:
        apply, image = self.program.model.apply, self.program.scale(batch["image"])
        return apply(params, image, method="attention_maps"), apply(params, image, method="pooling_weights")


class Expected(NamedTuple):
    """What weights expect of a model that starts from them."""

    model: dict[str, Any]
    """Keywords of the config of the model, its name among them; what is a choice of every training is left out."""
    pixels: str
    """The op that puts pixels where the weights were trained on them: `value_range(-1, 1)`."""


def expects(path: str) -> Expected | None:
    """What the weights at a path, or of a name on the hub, expect; `None` when they are not on this machine."""
    if weights.missing(path):
        return None
    source = weights.load(path)
    model, config = _model(source)
    wanted = {key: value for key, value in model.items() if key not in _CHOSEN}
    return Expected({**wanted, "image_size": config.image_size}, pixels(normalization(source)))


def published(config: Any, scaling: str) -> str:
    """The usual preprocessing of weights that come without one: the central crop of an image a seventh larger."""
    height, width, channels = config.image_shape
    decode = "decode" if channels == 3 else f"decode(channels={channels})"
    if height == width:
        size = f"resize_small({round(height * 8 / 7)}) | central_crop({height})"
    else:
        size = f"resize({height}, {width})"
    return f"{decode} | {size} | {scaling}"


def pixels(normalize: Mapping[str, Any] | None) -> str:
    """The op that puts pixels where weights want them, from `normalization`'s result; where Google's want them when
    that is not known."""
    if not normalize:
        return "value_range(-1, 1)"
    mean, std = (tuple(float(x) for x in normalize[key]) for key in ("mean", "std"))
    if len({*mean}) == len({*std}) == 1:
        return f"value_range({-mean[0] / std[0]:.10g}, {(1 - mean[0]) / std[0]:.10g})"
    return f"normalize({mean}, {std})"


def normalization(source: convert.Source) -> Mapping[str, Any] | None:
    """The `mean` and `std` of every channel by which pixels from 0 to 1 become what the weights were trained on.

    The experiment saved beside them knows it, or notes of their source; `None` when neither does.
    """
    saved = source.meta.get("config")
    if not saved:
        return source.conventions.get("normalize") or source.meta.get("normalize")
    found = loading.plan(ops.parse(_judged(saved)["preprocess"])).pixel_range
    if found is None:
        return None
    low, high = (np.broadcast_to(np.asarray(edge, np.float64), saved["model"]["channels"]) for edge in found)
    mean, std = (np.round(x, 10).tolist() for x in (-low / (high - low), 1 / (high - low)))
    return {"mean": mean, "std": std}


def _judged(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section that says how images were judged: the first evaluator, else the training data."""
    return next(iter(settings["evals"].values()), settings["data"])


def _settings(source: convert.Source, preprocess: str | None) -> dict[str, Any]:
    """The saved experiment, or around the model of other weights one that is only asked for it."""
    if "head/kernel" not in source.params:
        raise types.InputError(
            f"predict needs a classifier: {source.title} has no head. Fine-tune it on your classes first:"
            " experiments/transfer/own_images.md shows how."
        )
    if source.meta.get("config"):
        return sections.restore(source.meta["config"])
    model, config = _model(source)
    scaling = pixels(normalization(source))
    data = dict(source="folder:.", preprocess=preprocess or published(config, scaling))
    recipe = dict(
        name="weights",
        model=dict(model, num_classes=config.num_classes),
        data=dict(data, batch_size=1),
        optim=dict(name="sgd"),
        schedule=dict(name="constant", base=0.0),
        train=dict(total=1, loss=source.meta.get("loss") or "softmax"),
    )
    return sections.resolve(ml_collections.ConfigDict(recipe))


def _model(source: convert.Source) -> tuple[dict[str, Any], Any]:
    """The settings of the model that holds these weights, those that are no default, and its config."""
    model = {"name": "vit", **convert.model_of(source)}
    family = programs.functional.models.MODELS[model["name"]]
    return model, family.config(**{key: value for key, value in model.items() if key != "name"})


def _whole(source: convert.Source, program: programs.Program) -> types.FlatTree:
    """The parameters of the program, all of them from the source, as they are."""
    remedy = " The model saved or configured beside them is another: put the right config.json there."
    return weights.whole(source, program, layers(program.model), remedy=remedy)


def layers(model: programs.functional.Functional) -> types.FlatTree:
    """Shapes and dtypes of the parameters by neutral path, one leaf a layer."""

    def one(leaf: Any, _: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    return paths.unstack(paths.flatten(model.abstract), model.stacks, one)
