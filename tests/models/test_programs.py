"""Every family and the new options are stepped by the program of an experiment, in the shapes of the recipes."""

import jax
import ml_collections
import numpy as np
import pytest

from transformer_jax import experiment, models
from transformer_jax.experiment import program

SIZE = dict(variant=None, width=32, image_size=16, num_classes=5)
MODELS = {
    "resnet": dict(name="resnet", units=(1,), remat="full", **SIZE),
    "vit": dict(name="vit", depth=1, heads=2, mlp_dim=32, stem=(1,), patch=1, distilled=True, **SIZE),
}
DATA = dict(source="digits", preprocess="value_range(-1, 1)", batch_size=8)


def test_every_family_is_stepped():
    assert set(MODELS) == set(models.MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_built_stepped_and_read_like_any_other(name):
    sections = dict(optim=dict(name="adamw", weight_decay=0.1, clip_norm=1.0), schedule=dict(name="cosine", base=1e-2))
    parts = dict(name="tiny", model=MODELS[name], data=DATA, train=dict(total=2, average=0.9))
    sections["parallel"] = dict(mesh=dict(data=1, fsdp=2), rules="fsdp")
    settings = experiment.resolve(ml_collections.ConfigDict(parts | sections))
    made = program.Program(settings, (-1.0, 1.0), devices=jax.devices()[:2])
    rng, shapes = np.random.default_rng(0), made.neutral(jax.tree.map(lambda x: np.empty(x.shape), made.model.abstract))
    before = {path: np.float32(0.1 * rng.normal(size=leaf.shape)) for path, leaf in shapes.items()}
    state = made.init_with(jax.random.key(0), made.place(before))
    assert any("fsdp" in leaf.spec for leaf in jax.tree.leaves(made.shardings.params))
    batch = made.strategy.put(made.fake_batch(8))
    for _ in range(2):
        state, metrics = made.step(state, batch, made.strategy.scalar(1e-2))
    assert np.isfinite(float(metrics["loss"]))
    after = made.neutral(state.params)
    assert set(after) == set(before)
    assert (before["head/kernel"] != after["head/kernel"]).any()
    assert made.predict(state.params, batch).shape == (8, 5)
    assert made.features(state.params, batch).ndim == 2
    assert made.flops("train", 8) > 2 * made.flops("predict", 8) > 0
    restored = made.place(after)
    jax.tree.map(np.testing.assert_array_equal, restored, state.params)
