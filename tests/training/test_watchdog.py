"""A run that stands still: when it ends, and what it leaves."""

import pathlib
import subprocess
import sys
import threading
import time

import pytest

from transformer_jax.training import compilation, exits, goodput, journal, reporting, state, watchdog


class Run:
    """What a watchdog looks at, moved by hand."""

    def __init__(self, phase="step", typical=(64, 0.1)):
        self.phase, self.turns, self._typical = phase, 100, typical

    def typical(self):
        return self._typical


class Polled:
    """What a watchdog looks at, and whom it tells."""

    def __init__(self):
        self.polls, self.told, self.hung = 0, [], lambda said: None

    def tell(self, message):
        self.told.append(message)


@pytest.fixture
def watched(tmp_path):
    def make(factor=50.0, **options):
        run, stop, ended = Run(), Polled(), []
        dog = watchdog.Watchdog(
            factor,
            tmp_path,
            run,
            stop,
            floor=3.0,
            patience=100.0,
            end=ended.append,
            **options,
        )
        return dog, run, stop, ended

    return make


def test_a_step_may_take_so_many_times_the_median_one(watched):
    dog, run, _, ended = watched()
    assert dog.bound() == pytest.approx(5.0)
    dog.tick(1)
    for _ in range(5):
        dog.tick(1)
    assert ended == []
    dog.tick(1)
    assert ended == [exits.HUNG]


def test_short_steps_have_a_floor_in_seconds(watched):
    dog, run, _, _ = watched()
    run._typical = (64, 0.001)
    assert dog.bound() == 3.0


@pytest.mark.parametrize("moved", ["turns", "polls", "phase"])
def test_what_moves_is_alive(watched, moved):
    dog, run, stop, ended = watched()
    for count in range(40):
        if count % 4 == 0:
            if moved == "phase":
                run.phase = "save" if run.phase == "step" else "step"
            else:
                target = run if moved == "turns" else stop
                setattr(target, moved, getattr(target, moved) + 1)
        dog.tick(1)
    assert ended == []


@pytest.mark.parametrize("phase", ["evaluation", "save", "startup"])
def test_evaluations_saves_and_the_start_have_a_bound_of_their_own(watched, phase):
    dog, run, _, ended = watched()
    run.phase = phase
    for _ in range(100):
        dog.tick(1)
    assert ended == []
    dog.tick(2)
    assert ended == [exits.HUNG]


def test_before_steps_are_known_and_while_a_program_is_compiled_the_bound_is_the_patient_one(watched, monkeypatch):
    dog, run, _, _ = watched()
    run._typical = (2, 0.1)
    assert dog.bound() == 100.0
    run._typical = (3, 0.1)
    assert dog.bound() == pytest.approx(5.0)
    monkeypatch.setattr(compilation.tally(), "compiling", True)
    assert dog.bound() == 100.0


def test_a_compilation_shows_while_it_lasts():
    import jax

    seen, counts = [], compilation.tally()

    def look(x):
        seen.append(counts.compiling)
        return x

    lowered = jax.jit(lambda x: jax.pure_callback(look, x, x) * 3).lower(1.0)
    assert counts.compiling
    lowered.compile()(1.0)
    assert not counts.compiling and seen == [False]


def test_time_in_which_the_process_was_stopped_does_not_count(watched):
    """Ticks are counted, not a clock: after Ctrl-Z for an hour there has been one tick."""
    dog, _, _, ended = watched(interval=0.01)
    with dog:
        time.sleep(0.1)
    assert ended == []


def test_a_debuggers_prompt_is_no_hang(watched):
    dog, _, _, ended = watched()
    left = threading.Event()
    namespace = {"__name__": "pdb", "wait": left.wait}
    exec("def prompt(): wait()", namespace)
    thread = threading.Thread(target=namespace["prompt"])
    thread.start()
    for _ in range(20):
        dog.tick(1)
    left.set()
    thread.join()
    assert ended == []


def test_none_watches_nothing(watched):
    dog, _, _, _ = watched(None)
    with dog:
        assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_the_thread_ends_with_the_run(watched):
    dog, _, _, _ = watched(interval=0.01)
    with dog:
        assert any(thread.name == "watchdog" for thread in threading.enumerate())
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_the_report_has_the_stacks_of_all_threads_and_the_memory_of_all_devices(tmp_path, capfd):
    over = threading.Event()

    def a_thread_that_waits():
        over.wait()

    thread = threading.Thread(target=a_thread_that_waits, name="a loader")
    thread.start()
    watchdog.dump(tmp_path / "hang-0.txt", "Nothing moves.")
    over.set()
    thread.join()
    text, said = (tmp_path / "hang-0.txt").read_text(), capfd.readouterr().err
    for report in (text, said):
        assert "Nothing moves." in report and "a_thread_that_waits" in report and "a loader" in report
        assert report.count("no memory statistics") == 8
    assert said.index("a_thread_that_waits") < said.index("no memory statistics"), "a device may hang: it comes last"


def test_a_device_that_hangs_does_not_keep_the_report_from_its_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(watchdog, "_memory", lambda: threading.Event().wait())
    monkeypatch.setattr(watchdog, "_ANSWER", 0.2)
    start = time.monotonic()
    watchdog.dump(tmp_path / "hang-0.txt", "Nothing moves.")
    assert time.monotonic() - start < 5 and "Thread 0x" in (tmp_path / "hang-0.txt").read_text()


def test_a_run_directory_that_cannot_be_written_does_not_keep_it_from_the_end(tmp_path, capfd):
    watchdog.dump(tmp_path / "no" / "hang-0.txt", "Nothing moves.")
    assert "Thread 0x" in capfd.readouterr().err


def test_all_processes_of_a_run_write_their_stacks_whoever_noticed(watched, tmp_path, capfd):
    dog, _, stop, ended = watched(interval=100.0)
    for _ in range(7):
        dog.tick(1)
    assert len(stop.told) == 1 and "no progress for" in stop.told[0] and ended == [exits.HUNG]
    (tmp_path / "hang-0.txt").unlink()
    with dog:
        stop.hung("Process 1 on elsewhere has made no progress.")  # as another one told
    assert ended == [exits.HUNG] * 2 and "Process 1 on elsewhere" in (tmp_path / "hang-0.txt").read_text()


HANGS = """
import sys, time
import jax
from transformer_jax.training import journal, preemption, reporting, state, watchdog
import small_run

def stuck_in_a_loader_of_mine():
    time.sleep(600)

def feed(position):
    for batch in small_run.batches(position):
        if batch["_id"][0] == 8 * 12:
            stuck_in_a_loader_of_mine()
        yield batch

watched = journal.Journal.training
import contextlib

@contextlib.contextmanager
def training(self):
    with watchdog.Watchdog(50.0, sys.argv[1], self, preemption.Stop(), floor=0.5, interval=0.1), watched(self):
        yield

journal.Journal.training = training
import pathlib
small_run.run(pathlib.Path(sys.argv[1]), 100, feed=feed, save_every=4)
"""


def test_a_run_that_hangs_says_where_and_exits_75(tmp_path):
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    here = pathlib.Path(__file__).parent
    process = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert process.returncode == exits.HUNG == 75, process.stderr[-2000:]
    report = (tmp_path / "hang-0.txt").read_text()
    assert "stuck_in_a_loader_of_mine" in report and "after 12 steps" in report and "phase 'step'" in report
    assert "stuck_in_a_loader_of_mine" in process.stderr
    assert (tmp_path / "checkpoints" / "12").is_dir(), "what was committed stands"


def test_the_journal_knows_the_median_turn_without_evaluations_saves_and_compilation():
    log = journal.Journal(reporting.Writers([]), total_steps=100, batch_size=8, every=100)
    clock = state.Clock()
    assert log.typical() == (0, 0.0)
    for turn in range(9):
        clock.advance(8)
        log.step(clock, {"loss": 1.0}, 0.1)
        if turn % 3 == 0:
            with log.paused("evaluation"):
                time.sleep(0.2)
    known, median = log.typical()
    assert known == 5 and median < 0.1 and log.turns == 9  # of 8 turns 3 were interrupted
    assert log.phase in goodput.PHASES
