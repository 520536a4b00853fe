"""Weights for other libraries: what they cannot hold is refused, what they must be told lies beside."""

import json

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.models import functional
from transformer_jax.transfer import convert, export, formats

from . import fakes, parity

TINY = parity.TINY | parity.ERF
RESNET = dict(name="resnet", variant=None, units=(1,), width=32, num_classes=5)


def _save(tmp_path, to, file="model.safetensors", meta=None, **config):
    model = TINY | config if "name" not in config else config
    params = parity.weights(functional.from_family(**{"name": "vit", **model}))
    return convert.save(tmp_path / file, params, model, to=to, meta=meta)


@pytest.mark.parametrize(
    ("to", "config", "message"),
    [
        ("timm", dict(mlp="gated"), "layout timm cannot compute mlp='gated'. Write safetensors"),
        ("timm", dict(norm_placement="post"), "cannot compute norm_placement='post'"),
        ("timm", dict(kv_heads=2), "cannot compute kv_heads=2"),
        ("npz", dict(norm="rmsnorm"), "layout google cannot compute norm='rmsnorm'"),
        ("google", dict(pool="map"), "layout google cannot compute pool='map'"),
        ("linen", dict(position="none"), "layout linen cannot compute position='none'"),
        ("npz", dict(registers=2), "layout google has no names for registers. Write safetensors"),
        ("hf", dict(pool="gap"), "layout huggingface cannot compute pool='gap'"),
        ("hf", dict(layer_scale=0.1), r"layout huggingface has no names for blocks/\{0-1\}/scale1/scale"),
        ("hf", dict(image_size=(8, 12)), r"square images and patches: these are \(8, 12\) and \(4, 4\)"),
        ("big_vision", dict(distilled=True), "layout big_vision has no names for dist, head_dist/"),
        ("pickle", dict(), "written as npz, timm, hf, safetensors or google.*: not 'pickle'"),
        ("hf", RESNET, "layout huggingface is one of the model vit: this is resnet"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_and_nothing_is_written(tmp_path, to, config, message):
    with pytest.raises(types.InputError, match=message):
        _save(tmp_path, to, **config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", [dict(mlp="gated", kv_heads=2), dict(distilled=True), dict(registers=2), RESNET])
@pytest.mark.parametrize("file", ["x.safetensors", "x.npz"])
def test_our_names_hold_every_model(tmp_path, config, file):
    saved = _save(tmp_path, "safetensors", file, **config)
    source = convert.load(saved.files[0])
    model = {"name": "vit", **TINY, **config} if "name" not in config else config
    assert convert.model_of(source) == model
    assert sorted(source.params) == sorted(saved.arrays)


def test_targets_mean_the_layout_of_the_model():
    assert export.layout("npz", "vit", {}) == "google"
    assert export.layout("npz", "vit", {"pool": "map"}) == "big_vision"
    assert export.layout("npz", "resnet", {}) == "bit"
    assert export.layout("timm", "resnet", {}) == "timm_bit"
    assert export.layout("hf", "vit", {"distilled": True}) == "huggingface_deit"
    assert export.layout("linen", "vit", {}) == "linen"


def test_a_resnet_is_written_as_big_transfer_and_as_timm(tmp_path):
    first = _save(tmp_path, "npz", "x.npz", **RESNET)
    again = convert.load(first.files[0])
    assert (again.layout, convert.model_of(again)) == ("bit", RESNET)
    second = convert.save(tmp_path / "y.safetensors", again.params, RESNET, to="timm")
    found = convert.load(second.files[0])
    assert all(np.array_equal(found.params[path], leaf) for path, leaf in again.params.items())


def test_class_names_and_normalisation_lie_where_each_library_looks(tmp_path):
    meta = dict(class_names=list("abcdefghij"), normalize={"mean": [0.5] * 3, "std": [0.25] * 3})
    for to in ("timm", "hf", "npz", "safetensors"):
        file = "x.npz" if to == "npz" else "model.safetensors"
        source = convert.load(_save(tmp_path / to, to, file, meta).files[0])
        assert source.meta["class_names"] == meta["class_names"]
        assert source.conventions["normalize"] == meta["normalize"]
        assert source.conventions["activation"] == "gelu_erf"
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert config["label_names"] == meta["class_names"] and config["pretrained_cfg"]["std"] == [0.25] * 3
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"]["9"] == "j" and config["hidden_act"] == "gelu"
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["image_std"] == [0.25] * 3


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        (
            {"model_type": "vit", "num_attention_heads": 2, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5},
            {"heads": 2, "activation": "gelu_tanh", "norm_epsilon": 1e-5},
        ),
        (
            {"architecture": "vit", "global_pool": "avg", "model_args": {"num_heads": 2, "act_layer": "gelu_tanh"}},
            {"heads": 2, "activation": "gelu_tanh", "pool": "gap", "class_token": True, "norm_epsilon": 1e-6},
        ),
    ],
    ids=["Hugging Face", "timm"],
)
def test_a_configuration_beside_the_file_is_followed(tmp_path, beside, told):
    arrays = fakes.timm() if "architecture" in beside else fakes.hugging_face()
    formats.write_safetensors(tmp_path / "model.safetensors", arrays, {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(beside))
    found = convert.model_of(convert.load(tmp_path / "model.safetensors"))
    assert {key: found[key] for key in told} == told


def test_labels_of_a_configuration_are_class_names_unless_they_are_numbers(tmp_path):
    formats.write_safetensors(tmp_path / "x.safetensors", fakes.hugging_face(), {"format": "pt"})
    for labels, names in (({"1": "b", "0": "a"}, ["a", "b"]), ({"0": "LABEL_0", "1": "LABEL_1"}, None)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": labels}))
        assert convert.load(tmp_path / "x.safetensors").meta.get("class_names") == names


def test_an_activation_we_have_not_is_an_error(tmp_path):
    formats.write_safetensors(tmp_path / "x.safetensors", fakes.hugging_face(), {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_act": "quick_gelu"}))
    with pytest.raises(types.InputError, match="The activation must be one of gelu, .*: .* says 'quick_gelu'"):
        convert.load(tmp_path / "x.safetensors")


def test_a_parameter_that_would_change_the_answer_is_not_passed_over(tmp_path):
    arrays = fakes.timm() | {"norm_pre.weight": np.ones(fakes.WIDTH), "norm_pre.bias": np.ones(fakes.WIDTH)}
    formats.write_safetensors(tmp_path / "x.safetensors", arrays, {"format": "pt"})
    with pytest.raises(types.InputError, match="2 of these timm names are not, norm_pre.bias, norm_pre.weight"):
        convert.load(tmp_path / "x.safetensors")
    formats.write_safetensors(tmp_path / "x.safetensors", fakes.timm() | {"mask_token": np.ones(8)}, {})
    assert convert.load(tmp_path / "x.safetensors").unused == ("mask_token",)


def test_a_config_json_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"train": {}}')
    with pytest.raises(types.InputError, match="which is another file. Choose another folder"):
        _save(tmp_path, "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    _save(tmp_path, "timm", "B16.safetensors")
    assert (tmp_path / "B16.json").exists() and (tmp_path / "config.json").read_text() == '{"train": {}}'


def test_what_a_reader_must_know_is_told(tmp_path):
    assert "timm builds them with 1e-6" in _save(tmp_path, "timm", norm_epsilon=1e-5).notes[0]
    assert "leaves them out" in _save(tmp_path, "timm", pre_logits=True).notes[0]
    assert "Load it as ViTModel" in _save(tmp_path / "hf", "hf", pre_logits=True).notes[0]
    assert "computes gelu_tanh" in _save(tmp_path, "npz", "x.npz").notes[0]
    assert "timm names no hybrid" in _save(tmp_path, "timm", stem=(1,), patch=2).notes[0]
    assert _save(tmp_path, "timm").notes == ()
