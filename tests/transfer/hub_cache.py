"""The cache of huggingface_hub as it lies on disk: blobs, refs, and snapshots of links to the blobs."""

import hashlib
from pathlib import Path

COMMIT = "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3"


def write(root, repository, files, *, revision="main", commit=COMMIT):
    """`files` (name to bytes) of one revision; returns the snapshot."""
    home = Path(root) / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    for name, content in files.items():
        blob = home / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    reference = home / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return snapshot


def use(monkeypatch, root, *, offline=True):
    """Makes it the cache of this process, in which the library may have been imported, with nothing resolved yet."""
    from huggingface_hub import constants

    from transformer_jax.transfer import hub

    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    hub.fetch.cache_clear()
