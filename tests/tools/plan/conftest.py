import dataclasses
from pathlib import Path

import pytest

from tests.tools.plan import small
from transformer_jax.tools.plan import compiling

REFUSAL = "RESOURCE_EXHAUSTED: HLO temporaries (18.50G) exceeds available HBM (15.48G)."


@pytest.fixture(scope="session")
def compiled():
    """A step compiled for the CPU's devices, with the text of a TPU program on the same mesh."""
    text = (Path(__file__).parent / "programs" / "scanned.txt").read_text()
    settings = small.settings(source="tfds:nowhere", data=dict(examples=6400), train=dict(total="10 epochs"))
    found = compiling.compile_step(settings, small.topology())
    assert "ENTRY" in found.text
    return dataclasses.replace(found, text=text)


@pytest.fixture
def refusing(monkeypatch):
    """A compiler that takes no time: it finds every step too large."""
    monkeypatch.setattr(compiling, "_compiled", lambda lowered, name: (None, REFUSAL))
