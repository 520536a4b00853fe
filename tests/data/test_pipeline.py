"""Order and augmentation are arithmetic; evaluation counts exactly N; streams close cleanly."""

import collections
import errno
import itertools
import logging
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import arrays, loading, pipeline

from . import fakes

PREPROCESS = "resize(12) | random_affine(20) | shift(2) | flip_lr | value_range(-1, 1)"


class Files:
    """The same images as encoded files, so that nothing is kept in memory."""

    in_memory = False

    def __init__(self, length=10, size=8, classes=5, bad=()):
        self._inner = fakes.source(length, size, classes)
        self.name, self.num_classes, self.class_names = "files train", classes, self._inner.class_names
        self.fingerprint = "files"
        self._bad = frozenset(bad)

    def __len__(self):
        return len(self._inner)

    def __getitem__(self, index):
        example = self._inner[index]
        data = fakes.encoded(example["image"], "PNG")
        return {**example, "image": data[: len(data) // 2] if index in self._bad else data}


def _take(pipe, count, start=0):
    stream = pipe.batches(start)
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def _train(source=None, preprocess=PREPROCESS, **options):
    options = {"batch_size": 4, "seed": 0, "ids": True, **options}
    return pipeline.Train(source or fakes.source(), preprocess, **options)


def _same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def _joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_epoch_holds_each_example_once_in_a_new_order(in_memory):
    source = fakes.source(10) if in_memory else Files(10)
    ids = _joined(_take(_train(source, "decode(1)"), 10))["_id"].reshape(4, 10)
    assert all(len(set(epoch)) == 10 for epoch in ids)
    assert len({tuple(epoch) for epoch in ids}) == 4


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_stream_continued_anywhere_equals_the_uninterrupted_one(in_memory):
    source = fakes.source(10) if in_memory else Files(10)
    pipe = _train(source, "decode(1) | " + PREPROCESS)
    whole = _joined(_take(pipe, 10))
    for start in (0, 4, 7, 19):
        part = _joined(_take(_train(source, "decode(1) | " + PREPROCESS), 3, start))
        _same(part, {name: values[start : start + 12] for name, values in whole.items()})


def test_memory_and_files_give_the_same_pixels():
    preprocess = "decode(1) | " + PREPROCESS
    _same(*(_joined(_take(_train(source, preprocess), 6)) for source in (fakes.source(10), Files(10))))


def test_the_batch_is_the_same_on_any_number_of_processes():
    """Process after process, which is how a mesh puts their parts together: neighbours in the batch stay neighbours."""
    whole = _take(_train(Files(10), "decode(1) | " + PREPROCESS, batch_size=64), 3, start=3)
    for count in (2, 4):  # two chunks a batch, and one
        options = dict(batch_size=64, process_count=count)
        parts = [
            _take(_train(Files(10), "decode(1) | " + PREPROCESS, process_index=i, **options), 3, start=3)
            for i in range(count)
        ]
        for batch, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            _same(_joined(pieces), batch)


def test_one_to_four_processes_and_batch_8_to_16_in_mid_epoch_keep_every_example_once():
    source = fakes.source(100)

    def ids(count, start=0, **options):
        return _joined(_take(_train(source, "resize(8)", **options), count, start))["_id"]

    before = ids(5, batch_size=8)
    after = [ids(10, 40, batch_size=16, process_index=i, process_count=4) for i in range(4)]
    stream = [*before, *np.concatenate([ids.reshape(10, 4) for ids in after], axis=1).ravel()]
    assert stream == ids(10, batch_size=20).tolist()
    for epoch in (stream[:100], stream[100:]):
        assert collections.Counter(epoch) == collections.Counter(source[i]["id"] for i in range(100))


def test_augmentation_differs_between_epochs_and_seeds():
    source = fakes.source(1, size=8)
    source.images[:] = fakes.picture(8, 8, 1)
    epochs = _take(_train(source, "shift(3)", batch_size=1), 12)
    assert len({batch["image"].tobytes() for batch in epochs}) > 4
    streams = [_joined(_take(_train(source, "shift(3)", batch_size=4, seed=seed), 1))["image"] for seed in (0, 1)]
    assert not np.array_equal(*streams)


def test_without_shuffle_the_order_is_the_sources():
    labels = _joined(_take(_train(preprocess="resize(4)", shuffle=False), 5))["label"]
    assert labels.tolist() == [i % 5 for i in range(10)] * 2


def test_the_order_is_what_it_was():
    # Golden: a run that is resumed with a newer NumPy or Grain must see the same examples and crops.
    batch = _take(_train(fakes.source(100, size=4), "shift(2)", batch_size=6, seed=7), 1, start=95)[0]
    assert [int(name[name.index("[") + 1 : -1]) for name in batch["_id"]] == [60, 94, 29, 13, 17, 75]
    assert batch["image"].sum(axis=(1, 2, 3), dtype=int).tolist() == [240, 1128, 232, 52, 102, 900]


def test_pixels_travel_as_uint8_and_the_value_range_is_left_to_the_device():
    pipe = _train(preprocess="resize(6) | flip_lr | value_range(-1, 1) | onehot(5)")
    (batch,) = _take(pipe, 1)
    assert batch["image"].dtype == np.uint8 and pipe.pixel_range == (-1, 1) and pipe.image_shape == (6, 6, 1)
    assert batch["label"].dtype == np.float32 and batch["label"].shape == (4, 5)
    pipe = _train(preprocess="value_range(0, 1) | copy('image', 'again')")
    (batch,) = _take(pipe, 1)
    assert batch["image"].dtype == np.float32 and pipe.pixel_range is None
    assert _train(preprocess="resize(6)").pixel_range is None


def test_a_batch_holds_arrays_only():
    (batch,) = _take(_train(ids=False), 1)
    assert {name: (v.dtype, v.shape) for name, v in batch.items()} == {
        "image": (np.uint8, (4, 12, 12, 1)),
        "label": (np.int32, (4,)),
    }


@pytest.mark.parametrize("options", [dict(threads=0), dict(threads=3), dict(prefetch=0), dict(prefetch=5, threads=2)])
def test_reading_ahead_changes_nothing(options):
    _same(_joined(_take(_train(Files(30), "decode"), 9)), _joined(_take(_train(Files(30), "decode", **options), 9)))


@pytest.mark.slow
def test_a_worker_process_names_a_corrupt_image():
    with pytest.raises(types.InputError, match=r"fake train\[3\]"):
        _take(_train(Files(10, bad=[3]), "decode(1) | resize(6)", workers=1), 3)
    pipe = _train(Files(10, bad=[3]), "decode(1) | resize(6)", batch_size=10, workers=1, on_bad_image="skip")
    (batch,) = _take(pipe, 1)
    assert batch[loading.SKIPPED].sum() == 1


@pytest.mark.slow
def test_worker_processes_change_nothing_and_leave_nothing_behind():
    preprocess = "decode(1) | resize(12) | shift(2)"
    expected = _joined(_take(_train(Files(30), preprocess), 9))
    shared = _shared_memory()
    _same(_joined(_take(_train(Files(30), preprocess, workers=2), 9)), expected)
    assert _eventually(lambda: _shared_memory() <= shared)


def test_closing_ends_the_threads():
    before = set(threading.enumerate())
    stream = _train(Files(50), "decode(1) | resize(12)", threads=4).batches(0)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    assert _eventually(lambda: not set(threading.enumerate()) - before)
    list(_evaluate(Files(50), batch_size=8))
    assert _eventually(lambda: not set(threading.enumerate()) - before)


def test_a_closed_stream_says_so():
    stream = _train().batches(0)
    stream.close()
    stream.close()
    with pytest.raises(ValueError, match="stream is closed"):
        next(stream)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_program_that_forgets_to_close_ends_quietly(workers, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "from transformer_jax.data import pipeline, sources\n"
        "if __name__ == '__main__':\n"
        "    source = sources.open_source('digits')\n"
        f"    train = pipeline.Train(source, 'shift(1)', batch_size=8, seed=0, workers={workers}, threads=2)\n"
        "    stream = train.batches(0)\n"
        "    batch = next(stream)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def _eventually(holds):
    deadline = time.time() + 10
    while not holds() and time.time() < deadline:
        time.sleep(0.02)
    return holds()


def _shared_memory():
    import pathlib

    folder = pathlib.Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _evaluate(source, preprocess="decode(1) | resize(6)", **options):
    return pipeline.Evaluate(source, preprocess, **{"ids": True, **options})


@pytest.mark.parametrize(("batch_size", "processes"), [(8, 1), (16, 2), (32, 8), (8, 8)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_counts_exactly_n_in_constant_shapes(batch_size, processes, in_memory):
    source = fakes.source(101) if in_memory else Files(101)
    seen = []
    for index in range(processes):
        pipe = _evaluate(source, batch_size=batch_size, process_index=index, process_count=processes)
        batches = list(pipe)
        assert pipe.num_examples == 101 and len(batches) == pipe.num_batches == -(-101 // batch_size)
        for batch in batches:
            assert batch["image"].shape == (batch_size // processes, 6, 6, 1) and batch["mask"].dtype == bool
            seen += batch["_id"][batch["mask"]].tolist()
    assert sorted(seen) == sorted(source[i]["id"] for i in range(101))


def test_evaluation_can_be_repeated():
    pipe = _evaluate(Files(11), batch_size=4)
    _same(*(_joined(list(pipe)) for _ in range(2)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_corrupt_image_is_named(in_memory):
    source = Files(10, bad=[3])
    source.in_memory = in_memory
    with pytest.raises(types.InputError, match=r"example 3 of 'files train': fake train\[3\].*on_bad_image"):
        _take(_train(source, "decode(1) | resize(6)"), 3)
    with pytest.raises(types.InputError, match=r"fake train\[3\]"):
        list(_evaluate(source, batch_size=4))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_skipped_image_moves_no_other_and_is_counted(in_memory, caplog):
    clean, broken = Files(10), Files(10, bad=[3, 4])
    broken.in_memory = in_memory
    preprocess = "decode(1) | resize(6)"
    expected = _joined(_take(_train(clean, preprocess, batch_size=10), 2))
    pipe = _train(broken, preprocess, batch_size=10, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        got = _joined(_take(pipe, 2))
    for want, label, image in zip(expected["_id"], got["label"], got["image"], strict=True):
        index = int(want[want.index("[") + 1 : -1])
        substitute = 5 if index in (3, 4) else index
        assert label == substitute % 5 and image[0, 0, 0] == substitute
    assert got[loading.SKIPPED].sum() == 6
    assert "fake train[3]" in caplog.text and "fake train[4]" in caplog.text


@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_masks_a_skipped_image(in_memory):
    source = Files(10, bad=[3])
    source.in_memory = in_memory
    pipe = _evaluate(source, batch_size=4, on_bad_image="skip")
    for _ in range(2):
        batch = _joined(list(pipe))
        assert batch["mask"].tolist() == [i != 3 and i < 10 for i in range(12)] and pipe.skipped == 1


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("on_bad_image", ["raise", "skip"])
def test_what_a_disk_fails_to_read_is_read_again_and_never_skipped(in_memory, on_bad_image, monkeypatch):
    """Two processes that hold the same rows must not train on different images because a disk of one failed."""
    monkeypatch.setattr(loading, "_PAUSES", (0.001, 0.001))
    failures = []

    class Failing(Files):
        def __getitem__(self, index):
            if index == 3 and failures:
                raise failures.pop()
            return super().__getitem__(index)

    source, options = Failing(10), dict(batch_size=10, on_bad_image=on_bad_image, threads=1)
    source.in_memory = in_memory
    good = _joined(_take(_train(source, "decode(1) | resize(6)", **options), 1))
    failures += [OSError(errno.EIO, "Input/output error", "3.png")] * 2
    _same(_joined(_take(_train(source, "decode(1) | resize(6)", **options), 1)), good)
    assert not failures
    for error, tries in [
        (OSError(errno.EIO, "Input/output error", "3.png"), 3),
        (PermissionError(errno.EACCES, "No", "3.png"), 1),
    ]:
        failures[:] = [error] * 10
        with pytest.raises(types.InputError, match="example 3 of 'files train' is not: 3.png: "):
            _take(_train(source, "decode(1) | resize(6)", **options), 1)
        assert 10 - len(failures) >= tries


def test_a_source_without_one_good_image_is_an_error():
    with pytest.raises(types.InputError, match="needs an image that can be read"):
        _take(_train(Files(3, bad=range(3)), "decode", on_bad_image="skip"), 1)


def test_images_of_several_sizes_are_an_error_with_a_remedy():
    class Uneven(Files):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "image": np.zeros((4 + index, 4, 1), np.uint8)}

    for in_memory in (True, False):
        source = Uneven()
        source.in_memory = in_memory
        with pytest.raises(types.InputError, match="one shape.*add a resize or crop"):
            _take(_train(source, "flip_lr"), 1)


def test_encoded_images_need_a_decode():
    with pytest.raises(types.InputError, match='Write "decode'):
        _take(_train(Files(), ""), 1)
    with pytest.raises(types.InputError, match='Write "decode'):
        _take(_train(Files(), "flip_lr"), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(batch_size=6, process_count=4), "6 examples, 4 processes"),
        (dict(batch_size=0), "batch_size"),
        (dict(on_bad_image="ignore"), "raise.*skip"),
        (dict(process_index=2, process_count=2), "process_index"),
        (dict(threads=-1), "at least 0: they are"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(types.InputError, match=message):
        _train(**options)


def test_a_large_source_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr("transformer_jax.data.loading.CACHE_BYTES", 100)
    kept = _joined(_take(_train(), 3))
    monkeypatch.undo()
    _same(kept, _joined(_take(_train(), 3)))


def test_pipelines_pickle_without_what_they_have_read():
    pipe = _train(fakes.source(1000, size=16))
    _take(pipe, 2)
    again = pickle.loads(pickle.dumps(pipe))
    assert len(pickle.dumps(pipe._loader)) < 2 * 1000 * 16 * 16
    _same(_joined(_take(pipe, 2, 8)), _joined(_take(again, 2, 8)))
    assert isinstance(pipe.source, arrays.ArraySource)
