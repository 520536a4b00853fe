"""`transformer-jax inspect`: what a file is, and which public ones are known."""

import hashlib
import json

import numpy as np
import pytest

from tests.transfer import fakes
from transformer_jax.cli import main
from transformer_jax.transfer import known


@pytest.fixture
def google(tmp_path):
    np.savez(tmp_path / "mine.npz", **fakes.google(pre_logits=False, classes=7))
    return tmp_path / "mine.npz"


def facts(path, capsys):
    assert main.main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_tells_its_checksum_layout_model_and_conventions(google, capsys):
    found = facts(google, capsys)
    assert found["sha256"] == hashlib.sha256(google.read_bytes()).hexdigest()
    assert (found["format"], found["layout"], found["known"]) == ("npz", "google", None)
    assert found["model"]["width"] == 8 and found["model"]["num_classes"] == 7
    assert found["conventions"]["activation"] == "gelu_tanh" and found["conventions"]["norm_epsilon"] == 1e-6
    assert found["parameters"] == sum(int(np.prod(leaf["shape"])) for leaf in found["leaves"].values()) == 1623
    assert main.main(["inspect", str(google)]) == 0
    told = capsys.readouterr().out
    assert "npz, google names" in told and found["sha256"] in told and "activation='gelu_tanh'" in told


def test_conventions_follow_the_layout(google, tmp_path, capsys):
    assert main.main(["convert", str(google), str(tmp_path / "hf"), "--to", "hf"]) == 0
    (tmp_path / "hf" / "bare").mkdir()
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / "bare" / "model.safetensors")
    capsys.readouterr()
    found = facts(tmp_path / "hf" / "bare" / "model.safetensors", capsys)
    assert found["layout"] == "huggingface"


def test_a_public_file_is_known_by_its_checksum(google, monkeypatch, capsys):
    digest = hashlib.sha256(google.read_bytes()).hexdigest()
    model = known.Model("gs://vit_models/x/AugReg.npz", "B/16", "google", 7, 12, sha256=digest)
    monkeypatch.setattr(known, "MODELS", (model,))
    assert facts(google, capsys)["known"] == "gs://vit_models/x/AugReg.npz"


def test_the_public_models_are_listed(capsys):
    assert main.main(["inspect", "--known"]) == 0
    told = capsys.readouterr().out
    assert "hf:google/vit-base-patch16-224" in told and "gs://bit_models/BiT-M-R50x1.npz" in told
    assert main.main(["inspect", "--known", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(known.MODELS) and all(row["command"] for row in rows)


def test_a_path_or_the_list_is_asked_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(["inspect"])
    assert stopped.value.code == 2


def test_a_public_file_that_is_not_here_is_said_to_be_elsewhere(capsys):
    assert main.main(["inspect", "BiT-M-R50x1.npz"]) == 2
    assert "curl -fLO https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz" in capsys.readouterr().err
