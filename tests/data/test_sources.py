"""Sources: opened by name, sliced, joined, thinned to few labels."""

import collections
import pickle

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import sources, views, vtab_labels

from . import fakes


def _open(split, size: int = 8):
    return fakes.source({"train": 50, "validation": 20}[split], size=size, split=split)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(sources.EMBEDDED, "fake", f"{__name__}:_open")


def _values(source):
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_slices_and_joins_work_for_any_source():
    source = sources.open_source("fake", "train[48:]+validation[:2]")
    assert _values(source) == [48, 49, 0, 1]
    assert source[2]["id"] == "fake validation[0]"
    assert source.labels().tolist() == [3, 4, 0, 1]
    assert [e["id"] for e in views.read(source, [3, 0])] == [source[3]["id"], source[0]["id"]]
    assert isinstance(source, sources.Source) and source.in_memory
    assert pickle.loads(pickle.dumps(source))[1]["label"] == 4


def test_fingerprints_tell_splits_sizes_and_subsets_apart():
    opened = [
        sources.open_source("fake", split, labels=labels)
        for split in ("train", "validation", "train[:10]", "train[1:11]")
        for labels in (None, 5)
    ]
    assert len({source.fingerprint for source in opened}) == len(opened)


def test_a_few_label_subset_is_balanced_nested_and_fixed():
    subsets = {n: _values(sources.open_source("fake", labels=n)) for n in (5, 12, 50)}
    assert subsets[50][:12] == subsets[12] and subsets[12][:5] == subsets[5]
    for n, values in subsets.items():
        counts = collections.Counter(value % 5 for value in values)
        assert max(counts.values()) - min(counts.values()) <= 1 and len(set(values)) == n
    assert subsets[12] != _values(sources.open_source("fake", labels=12, labels_seed=1))
    assert subsets[5] == [24, 0, 31, 47, 23]


def test_source_keywords_reach_the_opener():
    assert sources.open_source("fake", size=4, data_dir="ignored/where/it/says/nothing")[0]["image"].shape == (4, 4, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(spec="fakes"), "Did you mean 'fake'"),
        (dict(spec="tfds"), "tfds:NAME"),
        (dict(spec="folder:"), "folder:PATH"),
        (dict(spec="fake:x"), "A source is one of"),
        (dict(spec="fake", sise=3), "does not take 'sise'. Did you mean 'size'"),
        (dict(spec="fake", split="train[:0]"), "at least one example"),
        (dict(spec="fake", labels=51), "between 1 and the number of examples"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(types.InputError, match=message):
        sources.open_source(**arguments)


def test_labels_are_read_one_by_one_where_the_source_knows_no_better():
    class Bare:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"label": index * 2}

    assert np.array_equal(views.labels(Bare()), [0, 2, 4])


def test_the_listing_names_every_kind():
    lines = [line for line in sources.listing().splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == [
        "digits",
        "glyphs",
        "fake",
        "tfds:NAME",
        "folder:PATH",
        "private:NAME",
    ]
    assert all(len(line.split()) > 3 for line in lines)


def test_the_listing_names_every_label_function():
    indented = [line.split()[0] for line in sources.listing().splitlines() if line.startswith(" ")]
    assert indented == [f"label_function={name}" for name in vtab_labels.LABELS]
