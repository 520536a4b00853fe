"""Weights for other libraries: what they cannot hold is refused, what they must be told lies beside."""

import json

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.models import functional
from transformer_jax.transfer import convert, export, formats, library_configs

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
    assert "norm_epsilon of these weights is 1e-05; the code that reads the layout timm computes 1e-06" in " ".join(
        _save(tmp_path, "timm", norm_epsilon=1e-5).notes
    )
    assert "leaves them out" in _save(tmp_path, "timm", pre_logits=True).notes[0]
    assert "Load it as ViTModel" in _save(tmp_path / "hf", "hf", pre_logits=True).notes[0]
    assert "activation of these weights is gelu_erf; the code" in _save(tmp_path, "npz", "x.npz").notes[0]
    stem = _save(tmp_path, "timm", stem=(1,), patch=2).notes
    assert [note.split()[1] for note in stem[:3]] == ["stem_epsilon", "stem_epsilon_of", "stem_norm_epsilon"]
    assert "timm names no hybrid" in stem[3]
    bit = _save(tmp_path / "bit", "timm", **RESNET).notes
    assert "epsilon of these weights is 1e-10; the code that reads the layout timm_bit computes 1e-08" in bit[0]
    assert "no config.json was written" in bit[1] and not (tmp_path / "bit" / "config.json").exists()
    assert "version 4" in _save(tmp_path / "hybrid", "hf", stem=(1,), patch=1, **parity.TIMM_STEM).notes[0]
    assert _save(tmp_path, "timm").notes == ()


def _config(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_resnet_of_big_transfer_has_a_name_in_timm(tmp_path):
    params = {"head/kernel": np.zeros((2048, 3), np.float32), "head/bias": np.zeros(3, np.float32)}
    model = dict(name="resnet", variant="R50x1", num_classes=3)
    convert.save(tmp_path / "model.safetensors", params, model, to="timm", meta={"class_names": list("abc")})
    config = _config(tmp_path)
    assert (config["architecture"], config["num_classes"]) == ("resnetv2_50x1_bit", 3)
    assert config["model_args"] == {"in_chans": 3, "global_pool": "avg"} and config["num_features"] == 2048


@pytest.mark.parametrize("distilled", [False, True])
def test_a_file_without_a_head_promises_none(tmp_path, distilled):
    model = TINY | dict(distilled=distilled)
    params = parity.weights(functional.from_family(**{"name": "vit", **model}))
    body = {path: leaf for path, leaf in params.items() if not path.startswith("head")}
    for to in ("timm", "hf"):
        file = tmp_path / to / "model.safetensors"
        saved = convert.save(file, body, model, to=to, meta={"class_names": list("abcdefghij")})
        assert "class_names" not in convert.load(file).meta
    assert "last_hidden_state" in saved.notes[-1]
    timm, hf = _config(tmp_path / "timm"), _config(tmp_path / "hf")
    assert timm["num_classes"] == timm["pretrained_cfg"]["num_classes"] == 0 and "label_names" not in timm
    assert hf["architectures"] == ["DeiTModel" if distilled else "ViTModel"]
    assert "id2label" not in hf and "label2id" not in hf


def test_timm_finds_the_width_of_every_mlp():
    for width in (32, 192, 384, 768, 1152, 1280, 1408):
        for mlp in range(width, 6 * width, 11):
            assert int(width * library_configs._ratio(mlp, width)) == mlp
    assert library_configs._ratio(3072, 768) == 4
    assert int(1408 * (1425 / 1408)) == 1424  # what the plain quotient would do


CLIP = {"model_type": "clip", "hidden_act": "quick_gelu", "projection_dim": 512}
VIT = {"model_type": "vit", "hidden_act": "gelu", "layer_norm_eps": 1e-12}


@pytest.mark.parametrize("beside", [CLIP, VIT, {"architecture": "vit", "model_args": {"act_layer": "gelu"}}])
def test_a_configuration_of_other_weights_in_the_folder_is_left_alone(tmp_path, beside):
    formats.write_npz(tmp_path / "B.npz", fakes.google(pre_logits=False))
    (tmp_path / "config.json").write_text(json.dumps(beside))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [1.0] * 3}))
    found = convert.load(tmp_path / "B.npz").conventions
    assert (found["activation"], found["norm_epsilon"]) == ("gelu_tanh", 1e-6)
    assert found["normalize"]["mean"] == [0.5] * 3
    (tmp_path / "B.json").write_text(json.dumps(VIT))
    assert convert.load(tmp_path / "B.npz").conventions["activation"] == "gelu_erf"


@pytest.mark.parametrize(
    ("arguments", "top", "options", "message"),
    [
        ({}, {"global_pool": "max"}, {}, "The global_pool must be one of token, avg, map: .* says 'max'"),
        ({"global_pool": "avgmax"}, {}, {}, "global_pool .* says 'avgmax'"),
        ({"pos_embed": "rope"}, {}, {}, "The pos_embed must be one of learn, none: .* says 'rope'"),
        ({}, {"global_pool": "map"}, dict(pool="map"), "With cls beside the patches, a MAP head attends to all tokens"),
        ({}, {}, dict(pool="map", class_token=False, registers=2), "With registers .* pool_include_prefix is False"),
        (
            {"pool_include_prefix": True},
            {"global_pool": "avg"},
            dict(after=True),
            "With cls beside the patches, a mean is over the patches alone here: pool_include_prefix is True",
        ),
    ],
)
def test_files_of_timm_that_compute_something_else_are_refused(tmp_path, arguments, top, options, message):
    formats.write_safetensors(tmp_path / "model.safetensors", fakes.timm(**options), {"format": "pt"})
    config = {"architecture": "vit", "model_args": {"num_heads": 2, **arguments}, **top}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(types.InputError, match=message):
        convert.load(tmp_path / "model.safetensors")


def test_a_map_head_over_all_tokens_and_a_file_without_positions_are_read(tmp_path):
    arrays = fakes.timm(pool="map")
    del arrays["pos_embed"]
    formats.write_safetensors(tmp_path / "model.safetensors", arrays, {"format": "pt"})
    arguments = {"num_heads": 2, "pool_include_prefix": True, "pos_embed": "none", "img_size": 12}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "model_args": arguments}))
    found = convert.model_of(convert.load(tmp_path / "model.safetensors"))
    assert (found["pool"], found["class_token"], found["position"], found["image_size"]) == ("map", True, "none", 12)
    assert "pool_prefix" not in found
    google = fakes.google(pre_logits=False)
    del google["Transformer/posembed_input/pos_embedding"]
    formats.write_npz(tmp_path / "x.npz", google)
    with pytest.raises(types.InputError, match="table of positions must be in a file of the layout google"):
        convert.load(tmp_path / "x.npz")


def test_the_table_says_how_large_images_are_where_a_configuration_says_otherwise(tmp_path):
    formats.write_safetensors(tmp_path / "model.safetensors", fakes.hugging_face(), {"format": "pt"})
    beside = {"model_type": "vit", "num_attention_heads": 2, "image_size": 224, "patch_size": 4}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    assert convert.model_of(convert.load(tmp_path / "model.safetensors"))["image_size"] == 12
    formats.write_safetensors(tmp_path / "model.safetensors", fakes.timm(grid=(2, 8)), {"format": "pt"})
    beside = {"architecture": "vit", "model_args": {"num_heads": 2, "img_size": [8, 32], "patch_size": 4}}
    (tmp_path / "config.json").write_text(json.dumps(beside))  # a square number of patches, and no square
    assert convert.model_of(convert.load(tmp_path / "model.safetensors"))["image_size"] == (8, 32)


@pytest.mark.parametrize("beside", [CLIP, VIT])
def test_a_configuration_that_is_not_ours_is_not_overwritten(tmp_path, beside):
    (tmp_path / "config.json").write_text(json.dumps(beside))
    with pytest.raises(types.InputError, match="which is another file. Choose another folder"):
        _save(tmp_path, "hf")
    assert json.loads((tmp_path / "config.json").read_text()) == beside
    _save(tmp_path / "new", "hf", meta=dict(normalize={"mean": [0.5], "std": [0.5]}))
    _save(tmp_path / "new", "hf", meta=dict(normalize={"mean": [0.4], "std": [0.5]}))  # ours may be
    assert json.loads((tmp_path / "new" / "preprocessor_config.json").read_text())["image_mean"] == [0.4]


def test_a_hybrid_of_hugging_face_is_read_with_its_conventions(tmp_path):
    arrays = fakes.hugging_face_hybrid(stages=(1, 2))
    formats.write_safetensors(tmp_path / "model.safetensors", arrays, {"format": "pt"})
    beside = {"model_type": "vit-hybrid", "num_attention_heads": 2, "image_size": 24, "patch_size": 1}
    beside["backbone_config"] = {"model_type": "bit", "depths": [1, 2], "layer_type": "bottleneck"}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    found = convert.model_of(convert.load(tmp_path / "model.safetensors"))
    wanted = parity.TIMM_STEM | dict(stem=(1, 2), patch=1, image_size=24, heads=2, norm_epsilon=1e-12)
    assert {key: found[key] for key in wanted} == wanted
    beside["backbone_config"]["layer_type"] = "preactivation"
    (tmp_path / "config.json").write_text(json.dumps(beside))
    with pytest.raises(types.InputError, match="layer_type must be one of bottleneck: .* says 'preactivation'"):
        convert.load(tmp_path / "model.safetensors")
