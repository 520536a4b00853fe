import hashlib

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import digits, sources

GOLDEN = {
    "train": "4478a85d8ea2a986ae3559d8f9e1acad31c6278235fb321cbd5364d41f9f30c1",
    "validation": "29963b2476bc583abca554251e04e8100785e8e95ecb29d932f8e28f48a4107b",
    "test": "0143f3b52ba9671af94de183130c10636c6cd466feb1ef9bbfc950782382f1e4",
}


@pytest.mark.parametrize("split", digits.SPLITS)
def test_a_split_is_fixed_forever(split):
    source = digits.open(split)
    content = source.images.tobytes() + source.labels().astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN[split]


def test_the_splits_together_are_scikit_learns_digits():
    from sklearn import datasets

    expected = datasets.load_digits()
    opened = [digits.open(split) for split in digits.SPLITS]
    ours = np.concatenate([source.images.reshape(-1, 64) for source in opened])
    labels = np.concatenate([source.labels() for source in opened])
    theirs = np.rint(expected.data * 255 / 16).astype(np.uint8)
    pairs = zip(map(bytes, theirs), expected.target.tolist(), strict=True)
    assert [len(source) for source in opened] == [1257, 180, 360]
    assert sorted(zip(map(bytes, ours), labels.tolist(), strict=True)) == sorted(pairs)


@pytest.mark.parametrize("split", ["train", "validation", "test", "train[:100]", "train[-100:]", "validation[:50%]"])
def test_every_stretch_is_stratified(split):
    counts = np.bincount(sources.open_source("digits", split).labels(), minlength=10)
    assert counts.max() - counts.min() <= max(2, counts.sum() // 150)


def test_an_example_is_an_8x8_image_with_its_class():
    source = sources.open_source("digits")
    assert isinstance(source, sources.Source)
    assert source.class_names == tuple("0123456789") and source.num_classes == 10 and source.in_memory
    example = source[3]
    assert example["image"].shape == (8, 8, 1) and example["image"].dtype == np.uint8
    assert 0 <= example["label"] < 10


def test_nobody_can_write_into_the_shared_images():
    with pytest.raises(ValueError, match="read-only"):
        digits.open("train").images[0] = 0


def test_an_unknown_split_is_named_with_the_known_ones():
    with pytest.raises(types.InputError, match=r"train, validation, test. Not: 'valid'. Did you mean 'validation'"):
        sources.open_source("digits", "valid")
