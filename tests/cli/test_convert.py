"""`transformer-jax convert` as a person types it: every direction, the check, and what is left when it fails."""

import functools
import re

import jax
import ml_collections
import ml_dtypes
import numpy as np
import pytest

from tests.transfer import fakes, hub_cache
from transformer_jax import config, experiment, paths, types
from transformer_jax.cli import main
from transformer_jax.experiment import predictor, sections, weights
from transformer_jax.models import functional
from transformer_jax.training import checkpoint
from transformer_jax.transfer import convert, export, formats, surgery

NAMES = {"timm": "timm", "hf": "hf", "orbax": "orbax", "safetensors": "own.safetensors", "npz": "google.npz"}


def run(*words):
    return main.main(["convert", *map(str, words)])


@pytest.fixture
def google(tmp_path):
    """A file as those of AugReg."""
    np.savez(tmp_path / "AugReg.npz", **fakes.google(pre_logits=False, classes=7))
    return tmp_path / "AugReg.npz"


@pytest.mark.parametrize(
    "way", [("timm", "hf", "orbax", "safetensors", "npz"), ("safetensors", "orbax", "hf", "timm", "npz")]
)
def test_a_file_that_went_through_every_format_is_the_same_bit_for_bit(way, google, tmp_path, capsys):
    here = google
    for to in way:
        there = tmp_path / NAMES[to]
        assert run(here, there, "--to", to) == 0
        told = capsys.readouterr().out
        assert "check passed: largest difference on 4 random images logits" in told and "top 5 identical" in told
        here = there / "model.safetensors" if to in ("timm", "hf") else there
    before, after = formats.read(google).arrays, formats.read(here).arrays
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.dtype == after[name].dtype
        np.testing.assert_array_equal(array, after[name], err_msg=name)
    assert convert.load(here).conventions["activation"] == "gelu_tanh"


def test_what_came_from_big_vision_goes_back_to_the_same_file(tmp_path, capsys):
    """Blocks in one array, a wrapper around every name, bfloat16 as two bytes: 38 names, and 38 again."""
    arrays = fakes.big_vision(stacked=True, wrapper="params/img/")
    formats.write_npz(tmp_path / "x.npz", {name: leaf.astype(ml_dtypes.bfloat16) for name, leaf in arrays.items()})
    here = tmp_path / "x.npz"
    for name, to in (("timm", "timm"), ("orbax", "orbax"), ("y.npz", "npz"), ("linen.npz", "google")):
        assert run(here, tmp_path / name, "--to", to) == (2 if to == "google" else 0)
        here = tmp_path / name
    told = capsys.readouterr()
    assert "layout google cannot compute pool='map'" in told.err
    assert "params/img/Transformer/encoderblock/MlpBlock_0/Dense_0/bias  <-  blocks/{0-1}/mlp/up/bias" in told.out
    before, after = (formats.read(tmp_path / name).arrays for name in ("x.npz", "y.npz"))
    assert before.keys() == after.keys() and all(before[name].tobytes() == after[name].tobytes() for name in before)


@pytest.mark.parametrize("to", ["timm", "hf"])
def test_a_folder_is_read_as_the_file_in_it(to, google, tmp_path, capsys):
    folder = tmp_path / "vit_v1.5"  # no ending of a file
    assert run(google, folder, "--to", to) == 0
    assert (folder / "model.safetensors").is_file()
    assert weights.load(folder).sha256 == formats.sha256(folder / "model.safetensors") and not weights.missing(
        str(folder)
    )
    assert main.main(["inspect", str(folder)]) == 0
    assert f"safetensors, {weights.load(folder).layout} names" in capsys.readouterr().out
    assert run(folder, tmp_path / "back.npz", "--to", "npz") == 0
    np.testing.assert_array_equal(formats.read(tmp_path / "back.npz").arrays["cls"], formats.read(google).arrays["cls"])
    (folder / "checkpoints").mkdir()
    with pytest.raises(types.InputError, match="A checkpoint is a run directory"):
        weights.load(folder)


def test_words_that_are_no_format_or_head_are_refused(google, tmp_path, capsys):
    assert run(google, tmp_path / "x", "--to", "tim") == 2
    assert "--to must be one of npz, timm, hf, safetensors, orbax, google" in capsys.readouterr().err
    assert run(google, tmp_path / "x", "--to", "timm", "--head", "lose") == 2
    assert "--head must be one of keep, drop" in capsys.readouterr().err


def test_a_sigmoid_classifier_at_another_size_stays_one(tmp_path, capsys):
    """Of its experiment only the preprocessing is for other images; what the logits mean is not."""
    flat = convert.load(save_google(tmp_path)).params
    model = convert.model_of(convert.load(tmp_path / "g.npz"))
    digits = dict(source="digits", preprocess="resize(12) | value_range(0, 1)", batch_size=8)
    recipe = dict(name="x", model=dict(model), data=digits, optim=dict(name="sgd"))
    recipe |= dict(schedule=dict(name="constant", base=0.1), train=dict(total=1, loss="sigmoid"))
    settings = sections.settled(sections.resolve(ml_collections.ConfigDict(recipe)))
    checkpoint.save_params(tmp_path / "run", flat, {"config": config.plain(settings)})
    here = tmp_path / "run"
    for name, to, size in (("a.safetensors", "safetensors", 20), ("timm", "timm", 16), ("b.npz", "npz", 12)):
        assert run(here, tmp_path / name, "--to", to, "--image-size", size) == 0
        here = tmp_path / name
        assert weights.load(here).meta["loss"] == "sigmoid"
        found = predictor.Predictor(str(here))
        np.testing.assert_allclose(found.probabilities(np.zeros((1, 5))), 0.5)
        assert "value_range(0, 1)" in found.preprocess
    told = capsys.readouterr().out
    assert "prepare  that of the experiment was for other images; predict now takes the usual: decode | resize" in told


def test_every_array_is_in_the_report_with_its_new_name(google, tmp_path, capsys):
    run(google, tmp_path / "w.safetensors", "--to", "timm")
    told = capsys.readouterr().out
    assert "32 arrays, timm names, from 40 parameters" in told and "sha256" in told and "gelu_tanh" in told
    for theirs, ours in (
        ("blocks.*.attn.qkv.weight", "blocks/{0-1}/attention/query/kernel"),
        ("pos_embed", "position"),
        ("blocks.*.mlp.fc1.bias", "blocks/{0-1}/mlp/up/bias"),
    ):
        assert any(line.strip().startswith(f"{theirs}  <-") and ours in line for line in told.splitlines())


def test_a_name_of_the_hub_converts_with_what_lies_beside_it(google, tmp_path, monkeypatch, capsys):
    assert run(google, tmp_path / "hf", "--to", "hf") == 0
    files = {file.name: file.read_bytes() for file in (tmp_path / "hf").iterdir()}
    assert {"model.safetensors", "config.json"} <= files.keys()
    hub_cache.use(monkeypatch, tmp_path / "hub")
    hub_cache.write(tmp_path / "hub", "org/vit", files)
    assert run("hf:org/vit", tmp_path / "back.npz", "--to", "npz") == 0
    back = formats.read(tmp_path / "back.npz").arrays
    for name, array in formats.read(google).arrays.items():
        np.testing.assert_array_equal(array, back[name], err_msg=name)


RECIPE = """
import ml_collections

def get_config():
    digits = dict(source="digits", preprocess="value_range(-1, 1)", batch_size=64)
    return ml_collections.ConfigDict(dict(
        name="digits",
        model=dict(name="vit", variant=None, width=16, depth=1, heads=2, mlp_dim=16, patch=4, image_size=8, channels=1),
        data=dict(digits), optim=dict(name="sgd"), schedule=dict(name="constant", base=0.1), train=dict(total=1),
        evals=dict(val=dict(digits, split="validation")),
    ))
"""


def test_an_orbax_directory_is_evaluated_inspected_predicted_and_trained_from(tmp_path, capsys):
    """Weights with the exact GELU: what they mean travels with them, and every verb gives the numbers of the file."""
    model = dict(variant=None, width=16, depth=1, heads=2, mlp_dim=16, patch=4, image_size=8, channels=1)
    model |= dict(num_classes=10, head_zero=False, activation="gelu_erf", norm_epsilon=1e-5)
    built = functional.from_family("vit", **model)
    flat = paths.unstack(paths.flatten(jax.device_get(built.init(jax.random.key(0)))), built.stacks)
    names = [str(i) for i in range(10)]
    convert.save(
        tmp_path / "w.safetensors", flat, {"name": "vit", **model}, to="safetensors", meta={"class_names": names}
    )
    assert run(tmp_path / "w.safetensors", tmp_path / "orbax", "--to", "orbax") == 0
    source = weights.load(tmp_path / "orbax")
    assert convert.model_of(source)["activation"] == "gelu_erf" and source.meta["class_names"] == names
    image = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    out = ["--array", f"{tmp_path}/x.npy", "--logits", f"{tmp_path}/y.npy", "--top", "10"]
    assert main.main(["predict", "--checkpoint", f"{tmp_path}/orbax", *out]) == 0
    assert "  9 0." in capsys.readouterr().out
    expected = jax.jit(built.apply)(paths.unflatten(paths.stack(flat, built.stacks, np.stack)), image)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)
    (tmp_path / "recipe.py").write_text(RECIPE)
    found = evaluated(tmp_path, "orbax", capsys)
    assert found == evaluated(tmp_path, "w.safetensors", capsys)
    settings = experiment.resolve(config.load(f"{tmp_path}/recipe.py"), {"init_from.path": f"{tmp_path}/orbax"})
    assert experiment.prepare(settings, experiment.Shared()).settings["model"]["activation"] == "gelu_erf"


def evaluated(folder, name, capsys):
    assert main.main(["evaluate", "--config", f"{folder}/recipe.py", "--checkpoint", f"{folder}/{name}"]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_a_file_that_computes_something_else_is_kept_and_exits_1(google, tmp_path, monkeypatch, capsys):
    write = formats.write_safetensors

    def broken(path, arrays, meta):
        write(path, {name: leaf + 0.01 * (name == "head.bias") for name, leaf in arrays.items()}, meta)

    monkeypatch.setattr(export.formats, "write_safetensors", broken)
    assert run(google, tmp_path / "w.safetensors", "--to", "timm") == 1
    told = capsys.readouterr().out
    assert "check FAILED" in told and "logits 1.00e-02" in told and "features 0.00e+00" in told
    assert (tmp_path / "w.safetensors").exists()
    assert run(google, tmp_path / "again.safetensors", "--to", "timm", "--tolerance", "0.02") == 0


@pytest.mark.parametrize(
    "target, to, message",
    [
        ("there.npz", "npz", "Nothing is overwritten: .*there.npz exists"),
        ("there", "orbax", "Nothing is overwritten"),
        ("w.bin", "npz", "A file of --to npz ends in .npz"),
        ("w.npz", "timm", "A file of --to timm ends in .safetensors"),
        ("beside/model.safetensors", "hf", "Nothing is overwritten: .*config.json exists beside other weights"),
    ],
)
def test_nothing_is_overwritten_and_nothing_half_written_is_left(target, to, message, google, tmp_path, capsys):
    (tmp_path / "there.npz").write_bytes(b"x")
    (tmp_path / "there").mkdir()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "config.json").write_text('{"model_type": "vit"}')
    before = sorted(tmp_path.rglob("*"))
    assert run(google, tmp_path / target, "--to", to) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "there.npz").read_bytes() == b"x"


def test_a_writer_that_dies_leaves_nothing(google, tmp_path, monkeypatch):
    def half(path, arrays, meta):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(export.formats, "write_safetensors", half)
    with pytest.raises(OSError, match="No space left"):
        run(google, tmp_path / "out" / "w.safetensors", "--to", "timm")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_image_size_resizes_the_position_embedding(google, tmp_path, capsys):
    assert run(google, tmp_path / "large.npz", "--to", "npz", "--image-size", "20") == 0
    assert "1 + 3 x 3 -> 1 + 5 x 5 tokens" in capsys.readouterr().out
    source, found = convert.load(google), convert.load(tmp_path / "large.npz")
    resize = functools.partial(surgery.resize_position, source.params["position"], (3, 3), (5, 5), prefix=1)
    np.testing.assert_array_equal(found.params["position"], resize())
    assert convert.model_of(found)["image_size"] == 20


def test_without_its_head_a_backbone_is_compared_by_features(google, tmp_path, capsys):
    assert run(google, tmp_path / "body.safetensors", "--to", "safetensors", "--head", "drop") == 0
    told = capsys.readouterr().out
    assert "dropped  head/{bias,kernel}" in told and "logits" not in told.splitlines()[-1] and "features" in told
    assert not any(name.startswith("head") for name in convert.load(tmp_path / "body.safetensors").params)


def test_of_a_run_with_an_average_the_average_is_converted(tmp_path, capsys):
    flat = convert.load(save_google(tmp_path)).params
    moved = {path: leaf + 1 for path, leaf in flat.items()}
    checkpoint.save_params(tmp_path / "run", flat, {"average": None})
    leaves, meta = checkpoint.load_leaves(tmp_path / "run")
    both = leaves | {f"average/{path}": leaf for path, leaf in moved.items()}
    found = weights.of_checkpoint(both, meta, tmp_path)
    np.testing.assert_array_equal(found.params["norm/scale"], moved["norm/scale"])


def save_google(folder):
    np.savez(folder / "g.npz", **fakes.google(pre_logits=False))
    return folder / "g.npz"
