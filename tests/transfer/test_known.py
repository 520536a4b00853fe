"""The table of public weights against what is said of them, and against our own models."""

import jax
import numpy as np
import pytest

from transformer_jax import paths, types
from transformer_jax.models import functional
from transformer_jax.transfer import formats, hub, known, published

B16 = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"


def test_addresses_are_unique_and_parse():
    assert len({model.source for model in known.MODELS}) == len(known.MODELS)
    for model in known.MODELS:
        assert (
            hub.parse(model.source)
            if model.on_hub
            else model.source.startswith(("gs://vit_models/", "gs://bit_models/", "gs://big_vision/"))
        )


@pytest.mark.parametrize("model", [m for m in known.MODELS if m.mib and m.parameters], ids=lambda m: m.name)
def test_the_size_of_a_file_is_that_of_its_parameters_in_float32(model):
    """Published sizes, rounded in MiB or MB, beside counted parameters: two sources that must agree."""
    assert model.mib == pytest.approx(model.parameters * 4 / 2**20, abs=1.1)


@pytest.mark.parametrize("model", [m for m in known.MODELS if m.parameters], ids=lambda m: m.source)
def test_parameters_are_those_of_our_model(model):
    built = functional.from_family(
        "vit",
        variant=model.variant,
        image_size=model.image_size,
        num_classes=model.classes or 1,
        distilled="distilled" in model.name,
        pre_logits="imagenet21k/" in model.source or (model.layout == "huggingface" and "-in21k" in model.name),
    )
    flat = paths.flatten(built.abstract)
    counted = {path: leaf for path, leaf in flat.items() if model.classes or not path.startswith("head/")}
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(counted)) == model.parameters


def test_a_checksum_belongs_to_one_file_of_the_hub():
    stated = [model for model in known.MODELS if model.sha256]
    assert {f"hf:{name}" for name in published.SHA256} == {model.source for model in stated}
    assert len({model.sha256 for model in stated}) == len(stated)
    assert all(len(model.sha256 or "") == 64 and int(model.sha256 or "", 16) for model in stated)
    for model in stated:
        assert known.recognise("renamed.safetensors", model.sha256) is model


@pytest.mark.parametrize(
    ("name", "variant", "layout", "classes"),
    [
        ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224.npz",
         "R+Ti/16", "google", 1000),
        ("B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384.npz",
         "B/16", "google", 1000),
        ("webli_en_b16_224_63724782.npz", "B/16", "big_vision", 0),
        ("hf:timm/deit_small_distilled_patch16_224.fb_in1k", "S/16", "timm", 1000),
    ],
)  # fmt: skip
def test_files_beyond_the_recommended_are_known(name, variant, layout, classes):
    model = known.recognise(name, None)
    assert model is not None and (model.variant, model.layout, model.classes) == (variant, layout, classes)


def test_a_missing_file_that_is_public_says_where_it_lies(tmp_path):
    with pytest.raises(
        types.InputError, match=r"391 MiB\). Get it with: curl -fLO https://storage.googleapis.com/vit_"
    ):
        formats.sniff(tmp_path / f"{B16}.npz")
    with pytest.raises(types.InputError, match="name of 3 public files.*imagenet21k%2Bimagenet2012/ViT-B_16.npz"):
        formats.sniff(tmp_path / "ViT-B_16.npz")


def test_the_address_of_a_public_file_is_answered_with_its_size_and_a_command_without_a_login():
    with pytest.raises(types.InputError, match=r"is not one\. B_16-i21k.* \(391 MiB\)\. Get it with: curl -fLO https"):
        formats.sniff(f"gs://vit_models/augreg/{B16}.npz")


def test_a_file_is_recognised_by_its_name_and_size_or_its_checksum(monkeypatch):
    model = known.recognise(f"somewhere/{B16}.npz", None)
    assert model is not None and model.variant == "B/16" and model.classes == 21843
    assert known.recognise("ViT-B_16.npz", None) is None
    fine = known.recognise("ViT-B_16.npz", None, 86_859_496)
    assert fine is not None and fine.image_size == 384
    assert known.recognise(f"{B16}.npz", None, 7) is None
    assert known.recognise("mine.npz", "0" * 64) is None
    monkeypatch.setattr(known, "MODELS", (model._replace(sha256="0" * 64),))
    assert known.recognise("mine.npz", "0" * 64) == known.MODELS[0]


def test_a_repository_is_recognised_with_or_without_file_and_revision():
    for address in ("hf:google/vit-base-patch16-224", "hf:google/vit-base-patch16-224/model.safetensors@main"):
        model = known.recognise(address, None)
        assert model is not None and model.layout == "huggingface"
    assert known.recognise("hf:google/vit-base", None) is None


def test_the_table_has_a_line_a_model():
    lines = known.table().splitlines()
    assert len(lines) == len(known.MODELS) + 3 and "391" in next(line for line in lines if f"/{B16}.npz" in line)
