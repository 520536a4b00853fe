"""Names of the hub from a cache on disk; no network is ever asked."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.transfer import fakes, hub_cache
from transformer_jax import types
from transformer_jax.transfer import convert, formats, hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, used offline."""
    hub_cache.use(monkeypatch, tmp_path / "hub")
    return tmp_path / "hub"


@pytest.mark.parametrize(
    "address, parts",
    [
        ("hf:google/vit", ("google/vit", None, None)),
        ("hf://google/vit/model.safetensors", ("google/vit", "model.safetensors", None)),
        ("hf:google/vit@refs/pr/3", ("google/vit", None, "refs/pr/3")),
        ("hf:timm/vit_base.augreg2/sub/w.npz@v1.0", ("timm/vit_base.augreg2", "sub/w.npz", "v1.0")),
    ],
)
def test_a_name_has_a_repository_a_file_and_a_revision(address, parts):
    assert tuple(hub.parse(address)) == parts
    assert hub.parse(str(hub.parse(address))) == hub.parse(address)


@pytest.mark.parametrize("address", ["hf:", "hf:vit", "hf:a/b@", "hf:a b/c"])
def test_another_form_is_explained(address):
    with pytest.raises(types.InputError, match="A name on the hub is hf:ORG/NAME"):
        hub.parse(address)


def test_a_name_is_its_weights_in_the_cache_with_the_configuration_beside(cache):
    files = {
        "model.safetensors": b"weights",
        "config.json": b"{}",
        "pytorch_model.bin": b"x",
        "other.safetensors": b"y",
    }
    snapshot = hub_cache.write(cache, "google/vit", files)
    found = hub.fetch("hf:google/vit")
    assert found == snapshot / "model.safetensors" and found.read_bytes() == b"weights"
    assert found.with_name("config.json").exists()
    assert hub.fetch("hf:google/vit/other.safetensors").read_bytes() == b"y"
    assert hub.fetch(f"hf:google/vit@{hub_cache.COMMIT}") == found


def test_a_revision_is_its_own_snapshot(cache):
    hub_cache.write(cache, "fb/deit", {"pytorch_model.bin": b"x"}, commit="1" * 40)
    hub_cache.write(cache, "fb/deit", {"model.safetensors": b"y"}, revision="refs/pr/3", commit="2" * 40)
    assert hub.fetch("hf:fb/deit@refs/pr/3").read_bytes() == b"y"
    with pytest.raises(types.InputError, match=r"fb/deit must hold a .safetensors or .npz file.*@refs/pr/1"):
        hub.fetch("hf:fb/deit")


def test_weights_of_the_hub_load_like_a_file(cache, tmp_path):
    np.savez(tmp_path / "w.npz", **fakes.google())
    hub_cache.write(cache, "org/vit", {"w.npz": (tmp_path / "w.npz").read_bytes()})
    found, expected = convert.load("hf:org/vit"), convert.load(tmp_path / "w.npz")
    assert found.sha256 == expected.sha256 and found.layout == "google"
    assert formats.sniff("hf:org/vit/w.npz") == "npz"
    for name, leaf in expected.params.items():
        np.testing.assert_array_equal(found.params[name], leaf)


def test_what_is_not_in_the_cache_is_named_with_the_command_that_gets_it(cache):
    with pytest.raises(types.InputError, match="HF_HUB_OFFLINE is set.*hf download google/vit --revision v1; then"):
        hub.fetch("hf:google/vit@v1")


def test_several_files_are_a_question(cache):
    hub_cache.write(cache, "org/two", {"a.npz": b"a", "b.npz": b"b"})
    with pytest.raises(types.InputError, match="holds 2 weight files: a.npz, b.npz. Name one: hf:org/two/a.npz"):
        hub.fetch("hf:org/two")
    with pytest.raises(types.InputError, match="'c.npz'. Did you mean"):
        hub.fetch("hf:org/two/c.npz")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(types.InputError, match=r"pip install 'transformer-jax\[hub\]'"):
        hub.fetch("hf:no/library")


class Answers:
    """A hub that lists files or raises, and hands out what lies in a folder."""

    def __init__(self, monkeypatch, listing, folder=None):
        import huggingface_hub

        self.asked = []

        def list_repo_files(_, repository, revision=None):
            if isinstance(listing, Exception):
                raise listing
            return listing

        def download(repository, file, revision=None):
            self.asked.append(file)
            if folder is None:
                raise ConnectionError("no route")
            return str(folder / file)

        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def refused(kind):
    from huggingface_hub import errors

    kind = getattr(errors, kind)
    return kind.__new__(kind)  # its constructor wants the answer of whichever HTTP library is in use


@pytest.mark.parametrize(
    "kind, message",
    [
        ("GatedRepoError", "wants a login and its terms accepted: open https://huggingface.co/org/vit.*hf auth login"),
        ("RepositoryNotFoundError", "there is no public model 'org/vit'.*search=vit"),
        ("RevisionNotFoundError", "org/vit has no 'v7'. Leave @REVISION out"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_and_a_remedy(kind, message, tmp_path, monkeypatch):
    hub_cache.use(monkeypatch, tmp_path, offline=False)
    Answers(monkeypatch, refused(kind))
    with pytest.raises(types.InputError, match=message):
        hub.fetch("hf:org/vit@v7")


def test_with_a_network_weights_and_configuration_are_fetched_and_nothing_else(tmp_path, monkeypatch):
    hub_cache.use(monkeypatch, tmp_path / "hub", offline=False)
    hubs = Answers(monkeypatch, ["README.md", "config.json", "model.safetensors", "tf_model.h5"], tmp_path)
    assert hub.fetch("hf:org/vit") == hub.fetch("hf:org/vit") == tmp_path / "model.safetensors"
    assert hubs.asked == ["config.json", "model.safetensors"]


def test_without_a_network_the_cache_is_taken(tmp_path, monkeypatch):
    hub_cache.use(monkeypatch, tmp_path / "hub", offline=False)
    for listing in (ConnectionError("no route"), ["model.safetensors"]):
        Answers(monkeypatch, listing)
        with pytest.raises(
            types.InputError, match=r"the hub was not asked: (it cannot|.*did not arrive \(ConnectionError)"
        ):
            hub.fetch("hf:org/vit")
    snapshot = hub_cache.write(tmp_path / "hub", "org/vit", {"model.safetensors": b"w"})
    for listing in (ConnectionError("no route"), ["model.safetensors"]):
        Answers(monkeypatch, listing)
        hub.fetch.cache_clear()
        assert hub.fetch("hf:org/vit") == snapshot / "model.safetensors"


def test_the_environment_of_a_fresh_process_is_respected(tmp_path):
    np.savez(tmp_path / "w.npz", **fakes.google())
    hub_cache.write(tmp_path / "hf" / "hub", "org/vit", {"w.npz": (tmp_path / "w.npz").read_bytes()})
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    words = [sys.executable, "-m", "transformer_jax", "inspect", "hf:org/vit", "--json"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"] == "npz"
    words[-2] = "hf:org/other"
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "hf download org/other" in done.stderr
