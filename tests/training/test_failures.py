"""Failures in words, and compilation made visible."""

import jax
import jax.numpy as jnp
import pytest

from transformer_jax import types
from transformer_jax.training import compilation, evaluator, failures

from . import small_run

OOM = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 21474836480 bytes.\nmore"


def test_out_of_memory_says_what_to_change():
    with pytest.raises(types.InputError) as caught, failures.memory_hints(batch_size=1024, accumulate=2, devices=4):
        raise RuntimeError(OOM)
    text = str(caught.value)
    assert "128 examples at a time on each of 4" in text
    assert "accumulate=4" in text and "remat=full" in text and "'fsdp' axis" in text and "21474836480" in text


def test_out_of_memory_does_not_advise_what_is_done_already():
    text = failures.out_of_memory(OOM, batch_size=3, accumulate=1, remat="full", devices=1)
    assert "remat=full" not in text and "accumulate=2" not in text and "fsdp" not in text and "data.batch_size" in text


def test_other_errors_pass():
    with pytest.raises(ValueError, match="something else"), failures.memory_hints(batch_size=8):
        raise ValueError("something else")


def test_a_retrace_names_the_leaves_that_changed():
    step = jax.jit(compilation.traced_once(lambda batch: batch["image"] * 2, "The step"))
    step({"image": jnp.zeros((4, 3))})
    step({"image": jnp.ones((4, 3))})
    with pytest.warns(UserWarning, match=r"The step is compiled again.*0/0/image: float32\[4,3\] -> bfloat16\[4,3\]"):
        step({"image": jnp.ones((4, 3), jnp.bfloat16)})


def test_a_watch_times_only_what_was_compiled():
    double, watch = jax.jit(lambda x: x * 2), compilation.Watch()
    x = jnp.zeros(3)
    with watch.watching():
        double(x)
    assert watch.seconds is not None and watch.seconds > 0
    with watch.watching():
        double(x)
    assert watch.seconds is None


@pytest.mark.parametrize(
    ("scheduled", "due"),
    [({"every": 3}, {3, 6, 8}), ({}, {8}), ({"every": 3, "saves": 4}, {3, 4, 6, 8})],
)
def test_evaluators_run_when_due_and_at_the_end(scheduled, due):
    item = evaluator.Scheduled(small_run.Mean(), **scheduled)
    assert {step for step in range(9) if item.due(step, 8)} == due
