import pytest

from transformer_jax import experiment


@pytest.fixture(scope="session")
def shared():
    """One program for all tests that can share it."""
    return experiment.Shared()
