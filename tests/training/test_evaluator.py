"""Evaluations end on all processes together."""

import pytest

from transformer_jax.parallel import multihost
from transformer_jax.training import evaluator, preemption, watchdog


class Judge:
    name = "val"

    def __init__(self, done):
        self._done = done

    def __call__(self, params, *, stop):
        self._done.append("judged")
        return {"top1": 1}


def test_who_has_its_numbers_waits_for_the_others_before_it_stops_or_goes_on(monkeypatch):
    done, stop = [], preemption.Stop()

    def barrier(name, *, timeout):
        assert timeout == watchdog.PATIENCE
        done.append(name)

    monkeypatch.setattr(multihost, "barrier", barrier)
    assert evaluator.judged(Judge(done), None, stop) == {"top1": 1.0}
    stop.request()
    with pytest.raises(preemption.Preempted):
        evaluator.judged(Judge(done), None, stop)
    assert done == ["judged", "after the evaluation 'val'"] * 2
