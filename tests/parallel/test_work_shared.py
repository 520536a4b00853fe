"""What one process does for all, and what fails for one fails for all."""

import pytest

from transformer_jax import types
from transformer_jax.parallel import multihost, together


def fails():
    raise types.InputError("no such folder")


@pytest.fixture
def as_process(monkeypatch):
    """This process becomes one of two; the other one says `said`."""

    def become(index, said):
        monkeypatch.setattr(multihost, "count", lambda: 2)
        monkeypatch.setattr(multihost, "index", lambda: index)
        monkeypatch.setattr(multihost, "gather", lambda own: [said, own] if index else [own, said])
        monkeypatch.setattr(multihost, "broadcast", lambda own: said if index else own)

    return become


def test_alone_it_is_a_plain_call(monkeypatch):
    monkeypatch.setattr(multihost, "gather", None)
    assert together.by_first(lambda: 3) == together.by_all(lambda: 3) == 3
    for share in (together.by_first, together.by_all):
        with pytest.raises(types.InputError, match="no such folder"):
            share(fails)


def test_the_first_works_for_all(as_process):
    as_process(0, None)
    assert together.by_first(lambda: {"step": 3}) == {"step": 3}
    with pytest.raises(types.InputError, match="no such folder"):
        together.by_first(fails)
    as_process(1, [{"step": 3}, None])
    assert together.by_first(fails) == {"step": 3}, "the others do not do it"
    as_process(1, [None, "no such folder"])
    with pytest.raises(types.InputError, match="no such folder"):
        together.by_first(lambda: 3)


def test_what_fails_for_one_fails_for_all(as_process):
    as_process(0, None)
    assert together.by_all(lambda: 3) == 3
    as_process(1, "disk not mounted")
    with pytest.raises(types.InputError, match="Process 0 of 2 cannot go on: disk not mounted"):
        together.by_all(lambda: 3)
    with pytest.raises(types.InputError, match="^no such folder"):
        together.by_all(fails)
