import numpy as np
import pytest

from tests.cli.test_predict import CLASSES, ours, parameters, published
from transformer_jax import experiment
from transformer_jax.experiment import predictor
from transformer_jax.models import functional, vit
from transformer_jax.transfer import convert


@pytest.mark.parametrize("to", ["npz", "timm", "hf", "ours"])
def test_a_model_built_as_weights_expect_takes_all_of_them_but_the_head(to, tmp_path):
    scaling = "normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))" if to == "timm" else "value_range(-1, 1)"
    made = dict(dropout=0.1, stochastic_depth=0.1, activation="gelu_erf")
    path = ours(tmp_path / "w.safetensors", **made) if to == "ours" else published(tmp_path / to, to)[0]
    found = experiment.expects(str(path))
    assert found is not None and found.pixels == scaling
    assert not {"num_classes", "dropout", "stochastic_depth", "scan"} & set(found.model)
    assert found.model["activation"] == ("gelu_tanh" if to == "npz" else "gelu_erf")
    model = functional.from_family(**dict(found.model, num_classes=7))
    flat = predictor.layers(model)
    report = convert.apply(convert.load(path), flat).report
    assert set(report.reset) == {"head/kernel", "head/bias"} and not report.resized and not report.missing


def test_the_usual_image_size_is_told_too(tmp_path):
    path, _ = published(tmp_path / "npz", "npz", image_size=224, patch=56)
    found = experiment.expects(str(path))
    assert found is not None and found.model["image_size"] == 224


def test_weights_that_are_not_here_expect_nothing(tmp_path):
    assert experiment.expects(str(tmp_path / "B_16.npz")) is None


def test_a_hidden_layer_before_the_head_is_not_expected(tmp_path):
    path = ours(tmp_path / "w.safetensors", pre_logits=True)
    found = experiment.expects(str(path))
    assert found is not None and "pre_logits" not in found.model


@pytest.mark.parametrize(
    "config, text",
    [
        (vit.Config("B/16"), "decode | resize_small(256) | central_crop(224) | value_range(-1, 1)"),
        (vit.Config("B/16", image_size=384), "decode | resize_small(439) | central_crop(384) | value_range(-1, 1)"),
        (vit.Config("B/16", image_size=(160, 96)), "decode | resize(160, 96) | value_range(-1, 1)"),
        (
            vit.Config("B/16", channels=1),
            "decode(channels=1) | resize_small(256) | central_crop(224) | value_range(-1, 1)",
        ),
    ],
)
def test_weights_without_a_preprocessing_have_the_usual_one(config, text):
    assert predictor.published(config, predictor.pixels(None)) == text


@pytest.mark.parametrize(
    "scaling, mean, std",
    [
        ("value_range(-1, 1)", [0.5] * 3, [0.5] * 3),
        ("value_range(0, 1)", [0.0] * 3, [1.0] * 3),
        ("normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_the_normalization_of_a_run_is_that_of_its_preprocessing(scaling, mean, std, tmp_path):
    path = ours(tmp_path / "w.safetensors", preprocess=f"decode | resize(32) | {scaling}")
    found = predictor.normalization(convert.load(path))
    assert found == {"mean": mean, "std": std} and predictor.pixels(found) == scaling


def test_a_preprocessing_that_leaves_pixels_alone_tells_no_normalization(tmp_path):
    path = ours(tmp_path / "w.safetensors", preprocess="decode | resize(32)")
    assert predictor.normalization(convert.load(path)) is None


def test_the_classes_are_those_saved(tmp_path):
    parameters_, _ = parameters()
    found = experiment.Predictor(str(ours(tmp_path / "w.safetensors")))
    assert list(found.class_names) == CLASSES and found.channels == 3
    np.testing.assert_allclose(found.probabilities(np.zeros((2, 3))), np.full((2, 3), 1 / 3), atol=1e-6)
    assert set(predictor.layers(found.program.model)) == set(parameters_)
