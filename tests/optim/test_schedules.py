"""Every schedule keeps one contract; durations mean what they say."""

import doctest
import math

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.optim import schedules

NAMES = sorted(schedules.SCHEDULES)


def test_the_list_below_names_every_schedule():
    assert NAMES == ["constant", "cosine", "linear", "rsqrt"]


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(schedules).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_a_python_float_between_zero_and_base(name):
    rate = schedules.build(name, base=0.3, total_steps=50, warmup=5, cooldown=10)
    values = [rate(step) for step in range(51)]
    assert all(type(value) is float and 0 <= value <= 0.3 + 1e-12 for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_rises_in_a_line_from_zero_to_base(name):
    rate = schedules.build(name, base=2, total_steps=50, warmup="20%")
    np.testing.assert_allclose([rate(step) for step in range(11)], np.linspace(0, 2, 11), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_jumps_nowhere(name):
    rate = schedules.build(name, base=1.0, total_steps=1000, warmup=100, cooldown=200)
    values = np.array([rate(step) for step in range(1001)])
    assert np.abs(np.diff(values)).max() <= 1 / 99


@pytest.mark.parametrize("name", NAMES)
def test_cooldown_ends_at_end_and_the_rate_stays_there(name):
    rate = schedules.build(name, base=1.0, total_steps=40, warmup=4, cooldown=10, end=0.25)
    assert rate(40) == pytest.approx(0.25)
    assert rate(41) == rate(40)
    assert rate(35) > rate(38) > rate(40)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_up_of_the_whole_run_is_allowed_and_a_longer_one_is_not(name):
    assert schedules.build(name, base=1.0, total_steps=10, warmup=10)(9) == pytest.approx(0.9)
    with pytest.raises(types.InputError, match="11 \\+ 0 steps are more than its 10"):
        schedules.build(name, base=1.0, total_steps=10, warmup=11)
    with pytest.raises(types.InputError, match="6 \\+ 6 steps are more than its 10"):
        schedules.build(name, base=1.0, total_steps=10, warmup=6, cooldown=6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrong", [{"base": -1.0}, {"base": math.nan}, {"total_steps": 0}, {"end": 2.0}, {"end": -0.1}, {"warmup": -1}]
)
def test_values_without_meaning_are_refused(name, wrong):
    with pytest.raises(types.InputError):
        schedules.build(name, **{"base": 1.0, "total_steps": 10, **wrong})


@pytest.mark.parametrize("name", NAMES)
def test_durations_may_be_epochs(name):
    by_epochs = schedules.build(name, base=1.0, total_steps=100, warmup="2 epochs", batch_size=10, epoch_examples=105)
    by_steps = schedules.build(name, base=1.0, total_steps=100, warmup=21)
    assert [by_epochs(s) for s in range(100)] == [by_steps(s) for s in range(100)]


def test_cosine_is_half_a_cosine_and_linear_a_line():
    cosine = schedules.cosine(base=1.0, total_steps=100, end=0.5)
    assert cosine(25) == pytest.approx(0.5 + 0.25 * (1 + math.cos(math.pi / 4)))
    assert schedules.linear(base=1.0, total_steps=100, end=0.5)(25) == pytest.approx(0.875)


def test_rsqrt_halves_the_rate_after_three_timescales():
    rate = schedules.rsqrt(base=8e-4, total_steps=1_000_000, warmup=10_000, timescale=10_000)
    assert rate(10_000) == pytest.approx(8e-4)
    assert rate(40_000) == pytest.approx(4e-4)


def test_rsqrt_does_not_depend_on_the_length_of_the_run():
    short, long = (schedules.rsqrt(base=1.0, total_steps=n, warmup=10, timescale=50) for n in (500, 5000))
    assert [short(s) for s in range(500)] == [long(s) for s in range(500)]
    with pytest.raises(types.InputError, match="timescale"):
        schedules.rsqrt(base=1.0, total_steps=10, timescale=0)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(7, 7), (0, 0), ("7 steps", 7), ("1 step", 1), ("10%", 100), ("2.5 per cent", 25), ("3 epochs", 30)]
    + [
        ("0.5 epochs", 5),
        ("64 examples", 6),
        ("3 examples", 1),
        ("0 epochs", 0),
        ("1_000 steps", 1000),
        ("1e2 steps", 100),
    ],
)
def test_durations(duration, expected):
    assert schedules.steps(duration, total=1000, batch_size=10, epoch_examples=100) == expected


def test_per_cent_of_floats_does_not_lose_a_step():
    assert all(schedules.steps(f"{p}%", total=100) == p for p in range(101))


@pytest.mark.parametrize("duration", [True, "ten steps", "5 weeks", "-3 steps", "101%", ""])
def test_a_duration_in_no_known_form_says_which_forms_there_are(duration):
    with pytest.raises(types.InputError, match="'90 epochs'"):
        schedules.steps(duration, total=100)


def test_a_duration_that_lacks_its_measure_says_which():
    with pytest.raises(types.InputError, match="the batch size"):
        schedules.steps("10 examples")
    with pytest.raises(types.InputError, match="the size of the data set"):
        schedules.steps("1 epoch", batch_size=4)
    with pytest.raises(types.InputError, match="the length of the run"):
        schedules.steps("1%")


def test_an_unknown_schedule_names_its_neighbour():
    with pytest.raises(types.InputError, match="Did you mean 'cosine'"):
        schedules.build("cosin", base=1.0, total_steps=1)
