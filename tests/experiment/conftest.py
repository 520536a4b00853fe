import pytest

from transformer_jax import experiment


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path, monkeypatch):
    """Tests leave nothing in the user's compile cache."""
    monkeypatch.setenv("TRANSFORMER_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def shared():
    """One program for all tests that can share it."""
    return experiment.Shared()
