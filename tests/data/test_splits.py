"""The split language selects the same examples as TFDS does."""

import pytest
from tensorflow_datasets.core import splits as tfds_splits

from transformer_jax import types
from transformer_jax.data import splits


def _indices(split, **lengths):
    return [(part.base, i) for part in splits.parse(split) for i in part.interval(lengths[part.base])]


@pytest.mark.parametrize(
    "split",
    "train train[:80] train[80:] train[10:20] train[-10:] train[:-10] train[:99%] train[99%:] train[33%:67%]"
    " train[-7%:] train[:1_0] train[:12.5%] train[:0] train[100%:]".split(),
)
@pytest.mark.parametrize("length", [101, 1437, 99])
def test_slices_hold_what_tfds_would_take(split, length):
    (part,) = splits.parse(split)
    infos = {"train": type("Info", (), {"num_examples": length})()}
    if "." in split:  # TFDS reads whole percentages only
        assert len(part.interval(length)) == round(0.125 * length)
        return
    (expected,) = tfds_splits.AbstractSplit.from_spec(split).to_absolute(infos)
    start, stop = expected.from_ or 0, length if expected.to is None else expected.to
    assert list(part.interval(length)) == list(range(start, stop))


def test_parts_follow_each_other():
    assert _indices("train[:2]+validation[1:]", train=9, validation=3) == [
        ("train", 0), ("train", 1), ("validation", 1), ("validation", 2),
    ]  # fmt: skip
    assert splits.bases("train[:2]+validation+train[5:]") == ("train", "validation")


def test_two_slices_at_the_same_border_neither_overlap_nor_leave_a_gap():
    for length in (7, 100, 101, 997):
        first, second = splits.parse("train[:37%]+train[37%:]")
        assert [*first.interval(length), *second.interval(length)] == list(range(length))


@pytest.mark.parametrize(
    "split", ["", "train[", "train[5]", "train[:abc]", "train[:1.5]", "train[:120%]", "a b", "train+"]
)
def test_a_malformed_split_is_an_error_that_shows_the_forms(split):
    with pytest.raises(types.InputError, match="A split is written|percentages lie"):
        splits.parse(split)


def test_a_slice_beyond_the_split_is_an_error():
    with pytest.raises(types.InputError, match="'train' has 5 examples, asked for 0 to 6"):
        splits.parse("train[:6]")[0].interval(5)
