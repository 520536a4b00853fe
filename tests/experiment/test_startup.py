"""What goes wrong before the first step, and after the last, ends as what goes wrong between them does."""

import threading

import jax
import pytest

from tests.experiment import small
from transformer_jax import experiment, types
from transformer_jax.evaluation import classification
from transformer_jax.experiment import run, rundir
from transformer_jax.parallel import mesh, strategies
from transformer_jax.tools import bench
from transformer_jax.training import checkpoint, goodput, start


def watched():
    return any(thread.name == "watchdog" and thread.is_alive() for thread in threading.enumerate())


def test_weights_that_do_not_fit_are_told_in_words_and_a_start_is_watched(tmp_path, shared, monkeypatch):
    def begin(*args, **options):
        assert watched()
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")

    monkeypatch.setattr(start, "begin", begin)
    with pytest.raises(types.InputError, match="must fit the memory of a device"):
        experiment.train(small.tiny(), tmp_path, shared=shared, quiet=True)
    assert not watched()


def test_what_is_watched_is_the_start_and_then_the_loop(tmp_path):
    spent = goodput.Goodput()
    progress = run._Progress(spent)
    assert (progress.phase, progress.turns, progress.typical()) == ("startup", 0, (0, 0.0))
    spent.enter("step")
    progress.log = type("Log", (), {"turns": 7, "typical": lambda self: (5, 0.1)})()
    assert (progress.phase, progress.turns, progress.typical()) == ("step", 7, (5, 0.1))


def test_an_evaluation_is_watched(tmp_path, shared, monkeypatch):
    settings = small.tiny(train__total="2")
    experiment.train(settings, tmp_path, shared=shared, quiet=True)
    seen = []
    call = classification.Classification.__call__
    monkeypatch.setattr(
        classification.Classification,
        "__call__",
        lambda *args, **more: (seen.append(watched()), call(*args, **more))[1],
    )
    experiment.evaluate(settings, str(tmp_path), shared=shared)
    assert seen == [True] and not watched()


def test_a_save_that_fails_at_the_end_leaves_the_numbers_closed_and_the_time_written(tmp_path, shared, monkeypatch):
    closed = []
    close = checkpoint.Checkpointer.close

    def failing(self):
        close(self)
        raise OSError("the last save failed")

    monkeypatch.setattr(checkpoint.Checkpointer, "close", failing)
    monkeypatch.setattr(rundir.Numbers, "close", lambda self: closed.append(self))
    monkeypatch.setattr(goodput.Goodput, "leave", lambda self, step, now=False: closed.append(step) if now else None)
    with pytest.raises(OSError, match="the last save failed"):
        experiment.train(small.tiny(train__total="2"), tmp_path, shared=shared, quiet=True)
    assert len(closed) == 2 and closed[0] == 2


@pytest.mark.filterwarnings("ignore:The training step is compiled again")
def test_fake_batches_are_the_rows_of_this_process(shared, monkeypatch):
    monkeypatch.setattr(mesh, "readers", lambda *args: mesh.Reader(0, 2))
    rows, put = [], strategies.Jit.put
    monkeypatch.setattr(
        strategies.Jit, "put", lambda self, batch: (rows.append(len(batch["image"])), put(self, batch))[1]
    )
    experiment.rehearse(small.tiny(), shared=shared)
    bench.measure(small.tiny(model__num_classes="10"), steps=1, fake_data=True, kind="predict")
    assert rows == [16 // 2] * 2
