"""Weights of one model for another: everything is accounted for (promises 7, 16, 18)."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.transfer import convert, formats, layouts, surgery

from . import fakes


def _model(**kwargs):
    """A freshly initialised model: its values are not those of the file."""
    return layouts.read(fakes.google(seed=1, **({"pre_logits": False} | kwargs)), "google").params


def _file(tmp_path, **kwargs):
    formats.write_npz(tmp_path / "B_16.npz", fakes.google(**kwargs))
    return convert.load(tmp_path / "B_16.npz")


def _equal(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_the_same_architecture_is_loaded_bit_for_bit(tmp_path):
    source, target = _file(tmp_path, pre_logits=False), _model()
    params, report = convert.apply(source, target)
    assert list(params) == list(target)
    assert all(_equal(params[path], source.params[path]) for path in target)
    assert sorted(report.loaded) == sorted(target)
    assert (report.resized, report.reset, report.missing, report.unused) == ({}, {}, (), ())


def test_a_higher_resolution_and_other_classes_are_the_usual_case(tmp_path):
    source, target = _file(tmp_path), _model(grid=(5, 4), classes=2)
    params, report = convert.apply(source, target, target_grid=(5, 4))
    expected = surgery.resize_position(source.params["position"], (3, 3), (5, 4), prefix=1)
    assert _equal(params["position"], expected)
    assert params["head/kernel"] is target["head/kernel"] and params["head/bias"] is target["head/bias"]
    assert _equal(params["blocks/1/mlp/up/kernel"], source.params["blocks/1/mlp/up/kernel"])
    sha256 = formats.sha256(tmp_path / "B_16.npz")
    assert report.text() == REPORT.format(sha256=sha256[:16])


REPORT = """\
Weights from B_16.npz (npz, google names, sha256 {sha256})
  loaded   37 of 40 arrays: blocks/{{0-1}}/attention/key/{{bias,kernel}},
           blocks/{{0-1}}/attention/out/{{bias,kernel}}, blocks/{{0-1}}/attention/query/{{bias,kernel}},
           blocks/{{0-1}}/attention/value/{{bias,kernel}}, blocks/{{0-1}}/mlp/down/{{bias,kernel}},
           blocks/{{0-1}}/mlp/up/{{bias,kernel}}, blocks/{{0-1}}/norm1/{{bias,scale}},
           blocks/{{0-1}}/norm2/{{bias,scale}}, cls, embedding/{{bias,kernel}}, norm/{{bias,scale}}
  resized  position: 1 + 3 x 3 -> 1 + 5 x 4 tokens (align_corners)
  reset    head/{{bias,kernel}}: fresh values for 2 classes, the file has 5
  missing  none
  unused   pre_logits/{{bias,kernel}}"""


def test_shapes_instead_of_fresh_arrays_mark_the_gaps(tmp_path):
    target = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in _model(classes=2).items()}
    params, report = convert.apply(_file(tmp_path), target)
    gaps = {path for path, leaf in params.items() if isinstance(leaf, jax.ShapeDtypeStruct)}
    assert gaps == set(report.reset) == {"head/kernel", "head/bias"}


@pytest.mark.parametrize(
    ("head", "theirs", "ours", "kept"),
    [
        ("auto", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], True),
        ("auto", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "f"], False),
        ("auto", None, ["a", "b", "c", "d", "e"], True),
        ("keep", ["a", "b", "c", "d", "e"], ["v", "w", "x", "y", "z"], True),
        ("reset", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], False),
    ],
)
def test_the_head_is_kept_for_the_same_classes(tmp_path, head, theirs, ours, kept):
    source, target = _file(tmp_path), _model()
    params, report = convert.apply(source, target, head=head, source_classes=theirs, target_classes=ours)
    assert set(report.reset) == (set() if kept else {"head/kernel", "head/bias"})
    for path in ("head/kernel", "head/bias"):
        assert _equal(params[path], (source.params if kept else target)[path])


def test_keeping_a_head_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(types.InputError, match=r"head/kernel \(8, 5\) in the file, \(8, 2\) in the model"):
        convert.apply(_file(tmp_path), _model(classes=2), head="keep")
    with pytest.raises(types.InputError, match="must be one of auto, keep, reset, not 'freeze'"):
        convert.apply(_file(tmp_path), _model(), head="freeze")


def test_a_file_without_head_leaves_a_fresh_one(tmp_path):
    source, target = _file(tmp_path), _model()
    found = {path: leaf for path, leaf in source.params.items() if path.partition("/")[0] != "head"}
    params, report = convert.apply(found, target)
    assert set(report.missing) == {"head/kernel", "head/bias"}
    assert all(params[path] is target[path] for path in report.missing)
    with pytest.raises(types.InputError, match="the file has no .'head/bias', 'head/kernel'."):
        convert.apply(found, target, head="keep")


def test_positions_that_are_not_in_the_file_are_not_learned_anew(tmp_path):
    found = {path: leaf for path, leaf in _file(tmp_path).params.items() if path != "position"}
    with pytest.raises(types.InputError, match="model.position='sincos2d' or 'none' builds it without a learned"):
        convert.apply(found, _model())


def test_a_model_that_pools_without_class_token_drops_its_row(tmp_path):
    source = _file(tmp_path)
    params, report = convert.apply(source, _model(class_token=False, grid=(4, 4)))
    assert _equal(params["position"], surgery.resize_position(source.params["position"][1:], (3, 3), (4, 4)))
    assert report.resized == {"position": "1 + 3 x 3 -> 0 + 4 x 4 tokens (align_corners)"}
    assert "cls" in report.unused


def test_a_model_without_learned_positions_does_not_use_them(tmp_path):
    target = _model()
    del target["position"]
    assert "position" in convert.apply(_file(tmp_path), target).report.unused


def test_a_grid_that_is_no_square_must_be_named(tmp_path):
    source = _file(tmp_path, grid=(2, 6))
    with pytest.raises(types.InputError, match=r"13 rows are not 1 \+ 3 x 3. Name its grid"):
        convert.apply(source, _model())
    params, _ = convert.apply(source, _model(), source_grid=(2, 6))
    assert params["position"].shape == (10, fakes.WIDTH)


def test_values_take_the_types_of_the_model(tmp_path):
    arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in fakes.google(pre_logits=False).items()}
    formats.write_npz(tmp_path / "x.npz", arrays)
    params, report = convert.apply(convert.load(tmp_path / "x.npz"), _model(grid=(4, 4)))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}
    assert report.cast == {"bfloat16 -> float32": len(params)}
    assert report.text().endswith(f"cast     {len(params)} arrays bfloat16 -> float32")


def test_other_gaps_are_an_error_that_names_the_nearest_keys(tmp_path):
    source, target = _file(tmp_path, pre_logits=False), _model()
    found = dict(source.params)
    found["blocks/1/mlp/upp/kernel"] = found.pop("blocks/1/mlp/up/kernel")
    del found["cls"]
    found["blocks/0/attention/out/kernel"] = np.zeros((4, 2, fakes.WIDTH), np.float32)
    with pytest.raises(types.InputError) as error:
        convert.apply(convert.Source(found, name="own"), target, source_prefix=1)
    assert str(error.value) == GAPS


GAPS = """\
All weights but head and position embedding must be in the file in the shapes of the model: 3 of 40 are not.
  cls: missing in the file. Nothing in the file has a similar name.
  blocks/0/attention/out/kernel: (4, 2, 8) in the file, (2, 4, 8) in the model.
  blocks/1/mlp/up/kernel: missing in the file. Did you mean 'blocks/1/mlp/upp/kernel'?
The file: own (memory), width 8, 2 blocks, 2 heads, MLP 12, patch 4, 5 classes
The model: width 8, 2 blocks, 2 heads, MLP 12, patch 4, images of 12, 5 classes
Choose the model after the file. model.pool='gap' builds it without a class token, which the file lacks."""


def test_the_nearest_key_of_a_published_layout_has_its_published_name(tmp_path):
    arrays = fakes.google(pre_logits=False)
    arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_7/bias"] = arrays.pop(
        "Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias"
    )
    formats.write_npz(tmp_path / "x.npz", arrays)
    message = (
        "blocks/1/mlp/down/bias: missing in the file, where it would be"
        " 'Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias'."
        " Did you mean 'Transformer/encoderblock_1/MlpBlock_3/Dense_7/bias'?"
    )
    with pytest.raises(types.InputError, match=re.escape(message)):
        convert.apply(convert.load(tmp_path / "x.npz"), _model())


def test_a_missing_hidden_layer_of_the_head_names_the_setting(tmp_path):
    with pytest.raises(types.InputError, match="model.pre_logits=False builds it without a hidden layer"):
        convert.apply(_file(tmp_path, pre_logits=False), _model(pre_logits=True))


def test_a_deeper_model_is_an_error_that_compares_both(tmp_path):
    with pytest.raises(types.InputError, match=r"(?s)48 of.*and \d+ more.*2 blocks.*5 blocks"):
        convert.apply(_file(tmp_path), _model(depth=5))


def test_our_own_safetensors_is_a_source(tmp_path):
    target = _model()
    formats.write_safetensors(tmp_path / "x.safetensors", target, {"classes": ["a"]})
    source = convert.load(tmp_path / "x.safetensors")
    assert (source.layout, source.format, source.meta["classes"]) == ("neutral", "safetensors", ["a"])
    params, _ = convert.apply(source, _model())
    assert all(_equal(params[path], target[path]) for path in target)


def test_a_wrong_checksum_is_an_error(tmp_path):
    formats.write_npz(tmp_path / "x.npz", fakes.google())
    digest = formats.sha256(tmp_path / "x.npz")
    assert convert.load(tmp_path / "x.npz", sha256=digest.upper()).sha256 == digest
    with pytest.raises(types.InputError, match=f"must be 00ff: it is {digest}"):
        convert.load(tmp_path / "x.npz", sha256="00ff")


def test_patches_of_another_size_are_resized_when_that_is_allowed(tmp_path):
    source, target = _file(tmp_path, pre_logits=False), _model()
    target["embedding/kernel"] = np.zeros((6, 6, 3, fakes.WIDTH), np.float32)
    with pytest.raises(types.InputError, match=r"(?s)\(4, 4, 3, 8\) in the file.*init_from.patch='pinv' resizes"):
        convert.apply(source, target)
    with pytest.raises(types.InputError, match="init_from.patch must be one of error, pinv"):
        convert.apply(source, target, patch="bilinear")
    params, report = convert.apply(source, target, patch="pinv")
    expected = surgery.resize_patch(source.params["embedding/kernel"], (6, 6))
    np.testing.assert_array_equal(params["embedding/kernel"], expected)
    assert report.resized == {"embedding/kernel": "4 x 4 -> 6 x 6 pixels (pseudo-inverse)"}


def test_heads_that_were_inferred_follow_the_model(tmp_path):
    ours = _model()
    formats.write_safetensors(tmp_path / "x.safetensors", layouts.write(ours, "timm").arrays, {})
    source = convert.load(tmp_path / "x.safetensors")
    assert not source.heads_known and source.params["blocks/0/attention/query/kernel"].shape == (8, 1, 8)
    params, report = convert.apply(source, ours)
    assert set(report.loaded) == set(ours)
    assert all(_equal(params[path], ours[path]) for path in ours)


def test_both_heads_and_both_prefix_rows_of_a_distilled_model_are_known():
    source = _model() | {"dist": np.ones(fakes.WIDTH, np.float32)}
    source |= {f"head_dist/{leaf}": source[f"head/{leaf}"] + 1 for leaf in ("kernel", "bias")}
    source["position"] = np.arange(11.0 * fakes.WIDTH, dtype=np.float32).reshape(11, -1)
    target = {path: leaf * 0 for path, leaf in source.items()}
    target["position"] = np.zeros((2 + 16, fakes.WIDTH), np.float32)
    params, report = convert.apply(source, target, head="reset")
    assert report.resized == {"position": "2 + 3 x 3 -> 2 + 4 x 4 tokens (align_corners)"}
    np.testing.assert_array_equal(params["position"][:2], source["position"][:2])
    assert set(report.reset) == {"head/kernel", "head/bias", "head_dist/kernel", "head_dist/bias"}
    plain = {path: leaf for path, leaf in _model().items()}
    params, report = convert.apply(source, plain)
    np.testing.assert_array_equal(params["position"], source["position"][[0, *range(2, 11)]])
    assert set(report.unused) == {"dist", "head_dist/kernel", "head_dist/bias"}


def test_heads_that_nothing_tells_are_asked_for(tmp_path):
    formats.write_safetensors(tmp_path / "x.safetensors", fakes.timm(), {})
    source = convert.load(tmp_path / "x.safetensors")
    with pytest.raises(types.InputError, match="number of heads must be known: x.safetensors .* config.json"):
        convert.model_of(source)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "model_args": {"num_heads": 2}}))
    assert convert.model_of(convert.load(tmp_path / "x.safetensors"))["heads"] == fakes.HEADS


@pytest.mark.parametrize(
    ("extra", "setting"),
    [
        ({f"blocks/{i}/scale{n}/scale": (fakes.WIDTH,) for i in (0, 1) for n in (1, 2)}, "model.layer_scale=1e-5 "),
        (
            {f"blocks/{i}/attention/{name}_norm/scale": (2,) for i in (0, 1) for name in ("query", "key")},
            "model.qk_norm=True ",
        ),
        ({"registers": (4, fakes.WIDTH)}, "model.registers=4 "),
        ({"blocks/2/norm1/scale": (fakes.WIDTH,)}, "The model: .* 2 blocks"),
    ],
    ids=["layer scale", "norms of queries and keys", "registers", "a block"],
)
def test_what_takes_part_in_every_answer_is_never_left_out(extra, setting):
    """Only heads, what pools and the position embedding may be: a model without the rest computes something else."""
    source = _model() | fakes.numbered(extra, 0)
    with pytest.raises(types.InputError, match=rf"(?s)every answer must be in the model: {len(extra)} .*{setting}"):
        convert.apply(source, _model())
    for optional in ("head_dist/bias", "pre_logits/kernel", "pool/probe"):
        assert convert.apply(_model() | {optional: np.zeros((1, fakes.WIDTH))}, _model()).report.unused == (optional,)
