"""Weights in the published layout, all the way into our model: the logits are those of another implementation."""

from pathlib import Path

import jax
import numpy as np
import pytest

from transformer_jax import paths
from transformer_jax.models import functional
from transformer_jax.transfer import convert, formats, layouts, surgery

from . import fakes

GOLDEN = Path(__file__).parents[1] / "golden"  # made by make_vit_logits.py


def _model(**config):
    sizes = dict(variant=None, width=fakes.WIDTH, depth=2, heads=fakes.HEADS, mlp_dim=fakes.MLP, patch=fakes.PATCH)
    return functional.from_family("vit", **sizes, **{"image_size": 12, "num_classes": fakes.CLASSES, **config})


def _start(model, source, **kwargs):
    """Nested parameters of the model from the source, as a run starts."""
    fresh = paths.unstack(paths.flatten(model.init(jax.random.key(0))), model.stacks)
    params, report = convert.apply(source, fresh, **kwargs)
    return paths.unflatten(paths.stack(params, model.stacks, np.stack)), report


def _logits(model, params, image):
    return jax.jit(model.apply)(params, jax.numpy.asarray(image))


@pytest.mark.parametrize("scan", [True, False])
def test_the_logits_are_timms(scan):
    expected = np.load(GOLDEN / "vit_logits.npz")
    model = _model(activation="gelu_erf", scan=scan)  # timm's GELU, whatever the weights were trained with
    params, report = _start(model, convert.load(GOLDEN / "vit_google.npz"), head="keep")
    np.testing.assert_allclose(_logits(model, params, expected["image"]), expected["logits"], atol=2e-5)
    assert len(report.loaded) == 40 and not report.unused


def test_our_files_give_the_same_logits_as_the_published_one(tmp_path):
    image = np.load(GOLDEN / "vit_logits.npz")["image"]
    source = convert.load(GOLDEN / "vit_google.npz")
    formats.write_safetensors(tmp_path / "own.safetensors", source.params, {"classes": ["a"]})
    formats.write_npz(tmp_path / "own.npz", source.params)
    formats.write_npz(tmp_path / "published.npz", layouts.write(source.params, "google").arrays)
    model = _model()
    expected = _logits(model, _start(model, source)[0], image)
    for name in ("own.safetensors", "own.npz", "published.npz"):
        params, _ = _start(model, convert.load(tmp_path / name))
        np.testing.assert_array_equal(_logits(model, params, image), expected)


def test_a_larger_oblong_image_and_new_classes():
    model = _model(image_size=(16, 24), num_classes=3)
    source = convert.load(GOLDEN / "vit_google.npz")
    params, report = _start(model, source, target_grid=(4, 6))
    np.testing.assert_array_equal(
        params["position"], surgery.resize_position(source.params["position"], (3, 3), (4, 6), prefix=1)
    )
    assert set(report.reset) == {"head/kernel", "head/bias"}
    logits = _logits(model, params, np.ones((2, 16, 24, 3), np.float32))
    np.testing.assert_array_equal(logits, np.zeros((2, 3)))  # a fresh head is zero
