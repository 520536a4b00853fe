"""What is read and written again is the same file: every name, every shape, every bit."""

import json

import ml_dtypes
import numpy as np
import pytest

from transformer_jax.transfer import convert, formats, layouts

from . import fakes

FILES = {
    "2020": (fakes.google, {}, "google"),
    "augreg, eleven blocks": (fakes.google, dict(pre_logits=False, depth=11), "google"),
    "no class token, oblong": (fakes.google, dict(class_token=False, grid=(2, 5)), "google"),
    "hybrid, wide norms": (fakes.hybrid, dict(), "google"),
    "hybrid, plain norms": (fakes.hybrid, dict(wide=False, pre_logits=False), "google"),
    "hybrid, root only": (fakes.hybrid, dict(stages=()), "google"),
    "linen": (fakes.google, dict(numbers=fakes.LINEN), "linen"),
    "big_vision map": (fakes.big_vision, dict(), "big_vision"),
    "big_vision map, stacked": (fakes.big_vision, dict(stacked=True, depth=11), "big_vision"),
    "big_vision wrapped": (fakes.big_vision, dict(wrapper="params/img/", pool="gap"), "big_vision"),
    "big_vision class token": (fakes.big_vision, dict(pool="tok", wrapper="params/"), "big_vision"),
    "big_vision, positions inside": (fakes.big_vision, dict(where="Transformer/pos_embedding"), "big_vision"),
    "big_vision, nameless head": (fakes.big_vision, dict(inline=True), "big_vision"),
    "bit": (fakes.bit, dict(), "bit"),
    "bit deep": (fakes.bit, dict(stages=(3, 8, 36, 3), factor=2), "bit"),
    "timm": (fakes.timm, dict(depth=11), "timm"),
    "timm distilled": (fakes.timm, dict(distilled=True), "timm"),
    "timm map": (fakes.timm, dict(pool="map", class_token=False), "timm"),
    "timm registers": (fakes.timm, dict(registers=4, rows="grid", layer_scale=True), "timm"),
    "timm gap": (fakes.timm, dict(after=True), "timm"),
    "timm no_embed_class": (fakes.timm, dict(rows="grid"), "timm"),
    "timm qk norm": (fakes.timm, dict(qk_norm=True), "timm"),
    "timm hybrid": (fakes.timm, dict(stages=(2, 1)), "timm"),
    "timm hybrid, root only": (fakes.timm, dict(stages=()), "timm"),
    "Hugging Face": (fakes.hugging_face, dict(depth=11), "huggingface"),
    "Hugging Face pooler": (fakes.hugging_face, dict(pooler=True), "huggingface"),
    "Hugging Face bare": (fakes.hugging_face, dict(root="", pooler=True), "huggingface_bare"),
    "Hugging Face hybrid": (fakes.hugging_face_hybrid, dict(), "huggingface_hybrid"),
    "Hugging Face DeiT": (fakes.hugging_face, dict(distilled=True), "huggingface_deit"),
}


def _same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("kind", FILES)
def test_every_layout_comes_back_from_a_file(tmp_path, kind, dtype):
    make, options, layout = FILES[kind]
    arrays = {name: array.astype(dtype) for name, array in make(**options).items()}
    path = tmp_path / "x"
    if layouts.LAYOUTS[layout].file == "npz":
        formats.write_npz(path, arrays)  # bfloat16 is stored as two void bytes
    else:
        formats.write_safetensors(path, arrays, {"format": "pt"})
    source = convert.load(path)
    assert (source.layout, source.unused) == (layout, ())
    written, left, _ = layouts.write(source.params, layout, source.style)
    assert left == ()
    _same(written, arrays)


def _convert(source, there, to):
    """As the verb does: the notes of a file go with its weights."""
    convert.save(there, source.params, convert.model_of(source), to=to, origins=source.origins)
    return convert.load(there)


NPZ = [
    pytest.param(kind, marks=[pytest.mark.slow] if kind == "bit deep" else [])
    for kind, (_, _, layout) in FILES.items()
    if layouts.LAYOUTS[layout].file == "npz"
]


@pytest.mark.parametrize(
    ("chain", "dtype"),
    [(("timm",), np.float32), (("safetensors", "timm", "npz", "timm"), ml_dtypes.bfloat16)],
    ids=["timm", "safetensors-timm-npz-timm"],
)
@pytest.mark.parametrize("kind", NPZ)
def test_npz_to_timm_to_npz_through_files_is_the_same_file(tmp_path, kind, chain, dtype):
    make, options, layout = FILES[kind]
    arrays = {name: array.astype(dtype) for name, array in make(**options).items()}
    formats.write_npz(tmp_path / "x.npz", arrays)
    (tmp_path / "x.json").write_text(json.dumps({"transformer_jax": {"model": _model(kind)}}))
    source = convert.load(tmp_path / "x.npz")
    for i, to in enumerate((*chain, "npz")):
        source = _convert(source, tmp_path / f"{i}" / f"model.{'npz' if to == 'npz' else 'safetensors'}", to)
        assert source.unused == ()
    assert source.layout == layout
    _same(formats.read(tmp_path / f"{len(chain)}" / "model.npz").arrays, arrays)


def _model(kind):
    """What the file does not tell: nothing, but where the table of positions is no square."""
    return dict(variant=None, width=8, depth=2, heads=2, mlp_dim=12, patch=4, image_size=(8, 20), num_classes=5,
                pool="gap") if "oblong" in kind else {}  # fmt: skip


def test_arrays_of_several_types_that_a_file_puts_together_come_apart_in_theirs(tmp_path):
    arrays = fakes.google(pre_logits=False)
    kernel = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    arrays[kernel] = arrays[kernel].astype(ml_dtypes.bfloat16)
    formats.write_npz(tmp_path / "x.npz", arrays)
    middle = _convert(convert.load(tmp_path / "x.npz"), tmp_path / "model.safetensors", "timm")
    assert formats.read(tmp_path / "model.safetensors").arrays["blocks.0.attn.qkv.weight"].dtype == np.float32
    _convert(middle, tmp_path / "y.npz", "npz")
    _same(formats.read(tmp_path / "y.npz").arrays, arrays)


def test_a_name_of_a_layout_is_a_target(tmp_path):
    formats.write_npz(tmp_path / "x.npz", fakes.google(pre_logits=False))
    source = convert.load(tmp_path / "x.npz")
    linen = _convert(source, tmp_path / "linen.npz", "linen")
    assert linen.layout == "linen" and _convert(linen, tmp_path / "y.npz", "npz").layout == "linen"
    assert _convert(linen, tmp_path / "z.npz", "google").layout == "google"
    _same(formats.read(tmp_path / "z.npz").arrays, formats.read(tmp_path / "x.npz").arrays)


@pytest.mark.parametrize(
    ("kind", "middle"),
    [
        *((kind, middle) for kind in ("2020", "linen") for middle in ("timm", "huggingface", "big_vision", "neutral")),
        ("augreg, eleven blocks", "timm"),
        *((kind, middle) for kind in ("hybrid, wide norms", "hybrid, plain norms") for middle in ("timm", "neutral")),
        ("hybrid, root only", "timm"),
    ],
)
def test_google_to_ours_to_another_and_back(kind, middle):
    make, options, layout = FILES[kind]
    arrays = make(**options)
    ours, style, unused = layouts.read(arrays, layout)
    there, left, _ = layouts.write(ours, middle, {"position_rows": "own"})
    assert unused == left == ()
    back = convert.surgery.split_heads(layouts.read(there, layouts.find(there)[0]).params, fakes.HEADS)
    _same(back, ours)
    _same(layouts.write(back, layout, style).arrays, arrays)


def test_a_bit_resnet_goes_through_timm():
    arrays = fakes.bit()
    ours = layouts.read(arrays, "bit").params
    there = layouts.write(ours, "timm_bit").arrays
    assert there["head.fc.weight"].shape == (fakes.CLASSES, 32, 1, 1)
    assert layouts.find(there) == ("timm_bit", "")
    back = layouts.read(there, "timm_bit").params
    _same(back, ours)
    _same(layouts.write(back, "bit").arrays, arrays)


def test_transformers_5_names_its_modules_otherwise():
    ours = layouts.read(fakes.hugging_face(live=True), "huggingface").params
    _same(ours, layouts.read(fakes.hugging_face(), "huggingface").params)


@pytest.mark.parametrize(
    "options",
    [dict(where="Transformer/pos_embedding"), dict(inline=True)],
    ids=["positions inside the encoder", "MAP head without a name"],
)
def test_older_names_of_big_vision_are_read(options):
    arrays = fakes.big_vision(**options)
    assert layouts.find(arrays) == ("big_vision", "")
    ours, _, unused = layouts.read(arrays, "big_vision")
    assert unused == ()
    _same(ours, layouts.read(fakes.big_vision(), "big_vision").params)


def test_a_table_without_a_row_for_the_class_token_gets_a_zero_row():
    arrays = fakes.big_vision(pool="tok", grid=(14, 14))
    ours = layouts.read(arrays, "big_vision").params
    assert arrays["pos_embedding"].shape == (1, 196, fakes.WIDTH) and ours["position"].shape == (197, fakes.WIDTH)
    assert not ours["position"][0].any()
    np.testing.assert_array_equal(ours["position"][1:], arrays["pos_embedding"][0])


def test_the_row_of_the_class_token_is_added_to_it_where_there_is_none_for_it():
    ours = layouts.read(fakes.google(pre_logits=False), "google").params
    theirs = layouts.write(ours, "big_vision").arrays
    np.testing.assert_array_equal(theirs["cls"][0, 0], ours["cls"] + ours["position"][0])
    np.testing.assert_array_equal(theirs["pos_embedding"][0], ours["position"][1:])


def test_positions_of_registers_are_added_to_them():
    arrays = fakes.timm(registers=4, rows="all")
    ours, style, _ = layouts.read(arrays, "timm")
    rows = arrays["pos_embed"][0]
    np.testing.assert_array_equal(ours["registers"], arrays["reg_token"][0] + rows[1:5])
    np.testing.assert_array_equal(ours["position"], rows[[0, *range(5, 14)]])
    again = layouts.write(ours, "timm", style).arrays
    _same(layouts.read(again, "timm").params, ours)
    assert again["pos_embed"].shape == arrays["pos_embed"].shape


def test_a_zero_bias_of_query_norms_is_left_out_and_put_back():
    arrays = fakes.timm(qk_norm=True)
    for name in arrays:
        if name.endswith(("q_norm.bias", "k_norm.bias")):
            arrays[name][:] = 0
    ours, style, _ = layouts.read(arrays, "timm")
    assert not any(name.endswith("_norm/bias") for name in ours)
    _same(layouts.write(ours, "timm", style).arrays, arrays)


def test_parts_of_a_fused_matrix_that_is_not_whole_are_left_over():
    ours = layouts.read(fakes.timm(), "timm").params
    del ours["blocks/0/attention/key/bias"]
    left = layouts.write(ours, "timm").unused
    assert set(left) == {"blocks/0/attention/query/bias", "blocks/0/attention/value/bias"}
