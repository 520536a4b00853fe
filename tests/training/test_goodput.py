"""Where the time of a run went, over all processes that worked on it."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from transformer_jax.training import checkpoint, goodput, journal, preemption, reporting, state

from . import small_run


class Clock:
    """A clock that is set by hand, and a process that began with it."""

    def __init__(self, at=1000.0):
        self.at = at

    def __call__(self):
        return self.at


def begun(file=None, at=1000.0, age=0.0):
    clock = Clock(at)
    return clock, goodput.Goodput(file, age=age, now=clock, wall=clock)


def seconds(spent):
    return {name: value for name, value in spent.totals().items() if value and name in goodput.PHASES}


def test_the_clock_is_always_in_one_phase_and_forgets_nothing():
    clock, spent = begun(age=3.0)
    clock.at += 2
    spent.enter("step")
    clock.at += 10
    with spent.during("evaluation"):
        clock.at += 4
    spent.shift("data_wait", 1.5)
    spent.shift("compile", 2.5)
    clock.at += 1
    assert seconds(spent) == {"startup": 5, "step": 7, "evaluation": 4, "data_wait": 1.5, "compile": 2.5}
    assert spent.share() == pytest.approx(7 / 20)
    assert sum(seconds(spent).values()) == clock.at - 1000 + 3


def test_the_line_at_the_end_names_what_took_longest_first():
    clock, spent = begun(age=60.0)
    spent.enter("step")
    clock.at += 240
    spent.enter("save")
    assert spent.text() == "Goodput 80% of 5:00: step 4:00 (80%), start-up 1:00 (20%)."


def test_start_up_counts_from_the_start_of_the_process():
    code = "import time; time.sleep(.5)\nfrom transformer_jax.training import goodput\nage = goodput.process_age()"
    code += "\nprint(age, goodput.process_age())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = map(float, result.stdout.split())
    assert 0.5 < first < 60 and second == 0.0, "a second run of a process did not start with it"


def trained(spent, clock, steps, *, each=1.0):
    spent.enter("step")
    clock.at += steps * each


def test_what_a_dead_process_did_after_the_checkpoint_is_lost(tmp_path):
    """Saved at step 10 after 10 s, dead at step 17 with 2 s of evaluation since; the next begins 30 s later."""
    clock, first = begun(tmp_path / "g", age=5.0)
    trained(first, clock, 10)
    saved = first.totals()
    trained(first, clock, 7)
    with first.during("evaluation"):
        clock.at += 2
    first.leave(17, now=True)
    clock, second = begun(tmp_path / "g", at=clock.at + 30, age=0.0)
    clock.at += 4
    second.continues(saved, 10)
    totals = second.totals()
    assert seconds(second) == {"startup": 9, "step": 10, "lost": 9, "idle": 30}
    assert totals["lost_steps"] == 7 and totals["starts"] == 2
    trained(second, clock, 10)
    assert second.share() == pytest.approx(20 / 38), "nothing is paid for a machine that is not there"
    assert "over 2 starts" in second.text() and "7 steps lost; 0:30 idle" in second.text()


def test_where_nothing_was_lost_the_last_word_counts_not_the_checkpoint(tmp_path):
    """The save itself took time after its totals were taken."""
    clock, first = begun(tmp_path / "g")
    trained(first, clock, 10)
    saved = first.totals()
    with first.during("save"):
        clock.at += 3
    first.leave(10, now=True)
    _, second = begun(tmp_path / "g", at=clock.at)
    second.continues(saved, 10)
    assert seconds(second) == {"step": 10, "save": 3} and second.totals()["lost_steps"] == 0


def test_a_run_that_never_saved_lost_everything_but_its_start(tmp_path):
    clock, first = begun(tmp_path / "g", age=5.0)
    trained(first, clock, 4)
    first.leave(4, now=True)
    _, second = begun(tmp_path / "g", at=clock.at)
    second.continues({}, 0)
    assert seconds(second) == {"startup": 5, "lost": 4} and second.totals()["lost_steps"] == 4


def test_losses_add_up_over_restarts(tmp_path):
    saved, at = {}, 1000.0
    for start in range(3):  # each trains three steps, saves the first, and dies
        clock, spent = begun(tmp_path / "g", at=at)
        spent.continues(saved, start)
        trained(spent, clock, 1)
        saved = spent.totals()
        trained(spent, clock, 2)
        spent.leave(start + 3, now=True)
        at = clock.at
    _, last = begun(tmp_path / "g", at=at)
    last.continues(saved, 3)
    assert seconds(last) == {"step": 3, "lost": 6} and last.totals()["lost_steps"] == 6 and last.totals()["starts"] == 4


def test_a_checkpoint_of_elsewhere_brings_its_totals_and_no_loss(tmp_path):
    clock, first = begun(tmp_path / "g")
    trained(first, clock, 4)
    first.leave(4, now=True)
    _, second = begun(tmp_path / "g", at=clock.at + 100)
    second.continues({"step": 8.0, "starts": 1}, 2, here=False)
    assert seconds(second) == {"step": 8} and second.totals()["starts"] == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 3}', '{"step": 3, "wall": 1, "totals": null}'])
def test_a_last_word_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "g").write_text(text)
    assert goodput.read(tmp_path / "g") is None and goodput.read(tmp_path / "absent") is None


def test_the_file_is_written_at_most_once_a_second(tmp_path):
    clock, spent = begun(tmp_path / "g")
    for step in range(30):
        clock.at += 0.1
        spent.leave(step)
    assert json.loads((tmp_path / "g").read_text())["step"] in (20, 21, 22)
    spent.leave(30, now=True)
    assert json.loads((tmp_path / "g").read_text())["step"] == 30


def test_a_run_writes_it_between_the_lines_of_its_metrics_too(tmp_path):
    clock, spent = begun(tmp_path / "g")
    log = journal.Journal(reporting.Writers([]), total_steps=200, batch_size=8, every=100, goodput=spent)
    for step in range(1, 41):
        clock.at += 0.25
        log.step(state.Clock(step, 8 * step), {"loss": np.float32(1)}, 0.1)
    assert json.loads((tmp_path / "g").read_text())["step"] >= 36  # of 39 whose metrics were read, four a second


def test_a_run_keeps_it_in_its_checkpoints_and_in_its_metrics(tmp_path):
    stop = preemption.Stop()

    class Stopping(small_run.Mean):
        def __call__(self, params, *, stop):
            time.sleep(0.01)
            stop.request()
            return super().__call__(params, stop=stop)

    with pytest.raises(preemption.Preempted):
        small_run.run(tmp_path, 6, stop=stop, evaluate=Stopping())
    meta = checkpoint.load_leaves(tmp_path / "checkpoints" / "3")[1]
    assert meta["goodput"]["step"] > 0 and meta["goodput"]["evaluation"] > 0 and meta["goodput"]["starts"] == 1
    small_run.run(tmp_path, 6)
    last = reporting.read(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == 6 and "val/mean" in last and 0 < last["time/goodput"] <= 1


def test_checkpoints_from_before_the_clock_have_spent_nothing():
    golden = "tests/golden/checkpoint_v1"
    meta = checkpoint.load_leaves(golden)[1]
    assert "goodput" not in meta
