"""The search for what fits, with a compiler that is a formula."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from tests.tools.plan import small
from transformer_jax import experiment, types
from transformer_jax.tools.plan import compiling, estimate, prices, report, search

COST = {None: 1.0, "dots": 1.1, "dots_no_batch": 1.2, "full": 1.33}
MEMORY = {None: 16.0, "dots": 8.0, "dots_no_batch": 4.0, "full": 1.0}


def compiler(memory, state=4.0):
    """An `attempt` for devices of so much memory: the batch needs more, fsdp cuts the state and sends more."""
    asked = []

    def attempt(choice):
        asked.append(choice)
        needed = state / choice.fsdp + MEMORY[choice.remat] * choice.batch_size / 1024
        seconds = COST[choice.remat] * choice.batch_size + (10.0 * choice.fsdp if choice.fsdp > 1 else 0.0)
        timed = estimate.Estimate(seconds, seconds, seconds, seconds, 0.0, 0.0, 0, (), (), 0, 0)
        return search.Try(
            choice, SimpleNamespace(needed_bytes=int(needed * 2**30)), timed if needed <= memory else None
        )

    return attempt, asked


def seen(tries):
    return [(one.choice.remat, one.choice.fsdp, one.choice.batch_size, bool(one.timed)) for one in tries]


def test_full_recomputation_is_tried_too_and_the_batch_doubled_with_what_needs_least_memory():
    attempt, _ = compiler(memory=100.0)
    tries = search.look(attempt, 64, 1024)
    doubled = [("full", 1, 1024 * 2**i, 2**i <= 64) for i in range(1, 8)]
    assert seen(tries) == [(None, 1, 1024, True), ("full", 1, 1024, True), *doubled]


def test_full_recomputation_that_is_faster_is_taken(monkeypatch):
    monkeypatch.setitem(COST, "full", 0.8)  # a scanned model reads and writes less
    attempt, _ = compiler(memory=100.0)
    best = search.fastest(search.look(attempt, 64, 1024)[:2])
    assert best is not None and best.choice.remat == "full"


def test_what_lies_between_is_tried_where_only_full_recomputation_fits():
    attempt, _ = compiler(memory=9.0, state=4.0)
    assert seen(search.look(attempt, 1, 1024))[:4] == [
        (None, 1, 1024, False),
        ("full", 1, 1024, True),
        ("dots", 1, 1024, False),
        ("dots_no_batch", 1, 1024, True),
    ]


def test_the_batch_is_halved_until_something_fits():
    attempt, _ = compiler(memory=0.6, state=0.1)
    tries = search.look(attempt, 1, 1024)
    assert seen(tries) == [(None, 1, 1024, False), ("full", 1, 1024, False), ("full", 1, 512, True)]


def test_what_cannot_be_placed_is_refused_and_costs_no_compile():
    attempt, _ = compiler(memory=3.0)

    def refusing(choice):
        return attempt(choice) if choice.fsdp in (1, 8) else search.Try(choice, None, None, "At most 2 % may be whole.")

    tries = search.look(refusing, 64, 1024)
    refused = [one for one in tries if one.refused]
    best = search.fastest(tries)
    assert {one.choice.fsdp for one in refused} == {16, 64, 32} and best is not None and best.choice.fsdp == 8
    assert sum(not one.refused for one in tries) <= search.LIMIT
    assert "fsdp=64      1,024  refused: At most 2 % may be whole." in search.table(tries)
    assert search.row(refused[0])["refused"] and search.row(refused[0])["peak_bytes"] is None


def test_where_the_state_is_too_large_for_a_device_it_is_cut():
    attempt, _ = compiler(memory=3.0)
    tries = search.look(attempt, 64, 1024)
    assert all(one.timed is None for one in tries if one.choice.fsdp == 1)
    best = max((one for one in tries if one.choice.batch_size == 1024), key=lambda one: one.pace)
    assert best.choice.remat == "full" and best.choice.fsdp == 8  # the fewest that fit send least


def test_there_are_never_more_compiles_than_the_limit_and_none_twice():
    for memory in (0.1, 3.0, 6.0, 50.0, 1e9):
        attempt, asked = compiler(memory)
        tries = search.look(attempt, 64, 1024)
        assert len(asked) == len(tries) <= search.LIMIT and len(set(asked)) == len(asked)


def test_axis_sizes_divide_the_devices():
    assert search.axis_sizes(64) == [16, 8, 64, 32] and search.axis_sizes(4) == [4] and search.axis_sizes(1) == []


def resolved(raw, choice):
    """The experiment with the overrides that are printed for a choice."""
    printed = search.describe(choice, experiment.resolve(raw))
    words = dict(word.removeprefix("--config.").split("=", 1) for word in printed)
    return experiment.resolve(raw, words)


@pytest.mark.parametrize(
    "parallel",
    [
        {},
        dict(rules="hybrid", mesh=dict(replica=2, fsdp=4), across=dict(replica=2)),
        dict(rules="tensor", mesh=dict(data=2, tensor=4)),
        dict(strategy="pmap"),
    ],
)
@pytest.mark.parametrize(
    "choice",
    [search.Choice("full", 16, 4096), search.Choice(None, 1, 128), search.Choice("dots", 8, 256, unrolled=True)],
)
def test_the_overrides_that_are_printed_make_the_choice(choice, parallel):
    raw = small.raw(parallel=parallel)
    printed, chosen = resolved(raw, choice), choice.settings(experiment.resolve(raw))
    for way in (printed, chosen):  # an axis of 1 is as one that is not named
        way["parallel"]["mesh"] = {axis: n for axis, n in (way["parallel"]["mesh"] or {}).items() if n != 1} or None
    assert printed == chosen


def test_a_choice_for_fsdp_names_the_axis_that_takes_the_rest():
    words = search.describe(search.Choice("full", 16, 4096), small.settings())
    assert "--config.parallel.mesh.data=-1" in words and "--config.parallel.mesh.fsdp=16" in words
    assert "--config.data.batch_size=4096" in words and "--config.parallel.rules=fsdp" in words


@pytest.fixture
def planned(monkeypatch, compiled):
    """`search.run` with a compiler that takes every step, and what it was asked for."""
    asked = []

    def compile_step(settings, where):
        asked.append((settings["model"]["remat"], settings["parallel"], settings["data"]["batch_size"]))
        if settings["data"]["batch_size"] > 128:
            raise types.InputError("A batch of so many is too much.")
        return dataclasses.replace(compiled, settings=settings, batch_size=settings["data"]["batch_size"])

    monkeypatch.setattr(compiling, "compile_step", compile_step)
    return asked


def test_a_search_is_the_plan_of_the_cheapest_with_every_try(planned):
    settings = small.settings(data=dict(examples=6400), parallel=dict(strategy="pmap"))
    found = search.run(settings, small.topology(), prices=prices.Prices({"v3": 2.0}, "EUR", "mine"))
    text = found.pop("text")
    assert list(found) == list(report.KEYS) and json.loads(json.dumps(found)) == found
    assert [(one["batch_size"], one["fits"]) for one in found["search"]] == [
        (64, True),
        (64, True),
        (128, True),
        (256, False),
    ]
    assert found["largest_batch"] == 128 and found["batch_size"] == 64 and found["days"] > 0 and found["cost"] > 0
    assert all(way["strategy"] == "jit" and way["across"] == {} for _, way, _ in planned)
    for words in ("tried and fits: 128; 256 is refused", "parallel.strategy='pmap' was not kept", "cost", "EUR"):
        assert words in text
    assert "refused: A batch of so many is too much." in text and found["overrides"][0] in text


def test_a_price_that_is_missing_is_found_before_anything_is_compiled(planned):
    with pytest.raises(types.InputError, match="has none for v3"):
        search.run(small.settings(), small.topology(), prices=prices.Prices({"v5e": 2.0}, "EUR", "mine"))
    assert planned == []


def test_what_nothing_can_place_is_said_in_the_words_of_the_first(planned):
    with pytest.raises(types.InputError, match="^A batch of so many is too much.$"):
        search.run(small.settings(), small.topology(), batch_size=4096)


def test_when_nothing_fits_every_try_is_listed(refusing):
    with pytest.raises(types.InputError, match="Nothing fits v3:2x2: .* batch 8.*\n(.*\n)*.*does not fit"):
        search.run(small.settings(), small.topology())


def test_a_search_that_is_stopped_says_so():
    attempt, _ = compiler(memory=1e9)
    tries = search.look(attempt, 64, 1024)
    assert "stopped after 12 compiles" in search._said(tries, 1024)[0]


def test_a_shallow_scanned_model_is_tried_unrolled(monkeypatch):
    monkeypatch.setattr(search, "shallow", lambda compiled: True)
    attempt, _ = compiler(memory=100.0)
    assert [one.choice.unrolled for one in search.look(attempt, 64, 1024)][:3] == [False, False, True]
    words = search.describe(search.Choice(None, 1, 64, unrolled=True), small.settings())
    assert "--config.model.scan=False" in words


def test_the_table_has_a_line_a_try_and_says_what_does_not_fit():
    attempt, _ = compiler(memory=100.0)
    lines = search.table(search.look(attempt, 64, 1024)).splitlines()
    assert len(lines) == 10 and lines[-1].endswith("does not fit") and "none" in lines[1]
