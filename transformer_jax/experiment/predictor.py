"""A checkpoint as a function from images to logits."""

import jax
import numpy as np

from transformer_jax import types
from transformer_jax.data import loading, ops
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import sections, weights


class Predictor:
    """A checkpoint of ours as a function from images to logits: model, preprocessing and classes come out of it."""

    def __init__(self, path: str):
        source = weights.load(path)
        if not source.meta.get("config"):
            raise types.InputError(
                f"predict needs a checkpoint with its configuration: {path!r} has none. Take a run directory of ours."
            )
        settings = sections.restore(source.meta["config"])
        judged = next(iter(settings["evals"].values()), settings["data"])
        self._loss = settings["train"]["loss"]
        self.preprocess: str = judged["preprocess"]
        self.channels: int = settings["model"]["channels"]
        self.class_names: list[str] = source.meta["class_names"]
        pixel_range = loading.plan(ops.parse(self.preprocess)).pixel_range
        alone = dict(settings, parallel={"mesh": {"data": 1}, "rules": "data"})
        self.program = programs.Program(alone, pixel_range, devices=jax.devices()[:1])
        fresh = self.program.neutral(self.program.init(jax.random.key(0)).params)
        self._params = self.program.place(weights.fit(source, self.program, fresh, head="keep").params)

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
            logits = self.program.predict(self._params, self.program.jit.put({"image": padded}))
            rows.append(np.asarray(logits)[: len(part)])
        return np.concatenate(rows)
