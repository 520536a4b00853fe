import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.data import glyphs, pipeline, sources, typefaces


@pytest.fixture(scope="module")
def source():
    return sources.open_source("glyphs", size=10_000)


def test_it_is_a_source_of_letters_and_digits(source):
    assert isinstance(source, sources.Source)
    assert source.num_classes == len(source.class_names) == len(set(source.class_names)) == 62
    assert len(source) == 10_000 and len(sources.open_source("glyphs")) == 200_000
    example = source[7]
    assert example["image"].shape == (16, 16, 1) and example["image"].dtype == np.uint8
    assert source.class_names[example["label"]] == "7"


def test_an_example_is_the_same_alone_and_in_any_batch(source):
    indices = np.random.default_rng(0).permutation(10_000)[:300].tolist()
    together = source.__getitems__(indices)
    for index, example in zip(indices, together, strict=True):
        alone = source[index]
        assert np.array_equal(alone["image"], example["image"])
        assert (alone["label"], alone["id"]) == (example["label"], example["id"])


def test_an_example_does_not_depend_on_the_size_of_the_corpus(source):
    assert np.array_equal(glyphs.open(size=500).images([499]), source.images([499]))


def test_a_pickled_copy_in_another_process_reads_the_same(source):
    code = "import pickle, sys; s = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(s.images([5, 9]).tobytes())"
    result = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, check=True)
    assert result.stdout == source.images([5, 9]).tobytes()


def test_seeds_and_splits_are_different_streams(source):
    images = [
        source.images(range(100)),
        glyphs.open(seed=1).images(range(100)),
        glyphs.open("validation").images(range(100)),
    ]
    flat = np.concatenate(images).reshape(300, -1)
    assert len(np.unique(flat, axis=0)) == 300
    assert len({s.fingerprint for s in (source, glyphs.open(seed=1), glyphs.open(image_size=20))}) == 3
    assert len(glyphs.open("validation")) == 2000


def test_the_classes_take_turns_and_labels_says_so(source):
    labels = source.labels()
    assert [source[i]["label"] for i in (0, 61, 62, 9_999)] == labels[[0, 61, 62, 9_999]].tolist()
    assert np.ptp(np.bincount(labels)) <= 1


def test_no_image_is_empty_and_none_is_like_another(source):
    images = source.images(range(3100)).reshape(3100, -1).astype(np.float32)
    assert images.std(1).min() > 8
    assert len(np.unique(images, axis=0)) == 3100


def test_polarity_contrast_and_thickness_change(source):
    images = source.images(range(3100))[..., 0].astype(np.float32)
    border = np.median(np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1), axis=1)
    assert 0.02 < (border > 150).mean() < 0.3, "a share of the examples is dark on light"
    same_class = images[border < 60][0::62]
    assert same_class.mean((1, 2)).std() > 5


def test_a_class_looks_more_like_itself_than_like_the_others(source):
    """Nearest mean image, a classifier that cannot be fooled by a label that has nothing to do with its image."""
    images = source.images(range(10_000)).reshape(10_000, -1).astype(np.float32)
    images = images[:, :] - images.mean(1, keepdims=True)
    labels = source.labels()
    means = np.stack([images[:8000][labels[:8000] == c].mean(0) for c in range(62)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    accuracy = ((images[8000:] @ means.T).argmax(1) == labels[8000:]).mean()
    assert accuracy > 0.2, "chance is 0.016"


@pytest.mark.parametrize("size", [8, 16, 28, 33])
def test_any_size_is_drawn(size):
    images = glyphs.open(image_size=size).images([0, 1])
    assert images.shape == (2, size, size, 1)


def test_the_same_image_at_two_sizes_shows_the_same_glyph():
    small = glyphs.open(image_size=12).images(range(62)).astype(np.float32)
    large = glyphs.open(image_size=24).images(range(62)).astype(np.float32)
    halved = large.reshape(62, 12, 2, 12, 2).mean((2, 4))
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, halved, strict=True)]
    assert np.median(correlation) > 0.9


def test_the_resampling_weights_are_whole_sixty_fourths():
    for size in (8, 16, 24, 33):
        resampling = glyphs._resampling(size)
        assert np.array_equal(resampling, np.rint(resampling)) and (resampling.sum(2) == 64).all()
        assert (np.abs(glyphs._spline(size).sum(1) - 64) <= 24).all()


def test_templates_are_signed_distances():
    templates = typefaces.templates()
    assert templates.distance.shape == (len(typefaces.FACES), 62, typefaces.SIDE, typefaces.SIDE)
    assert (templates.half_width > 0.01).all() and (templates.half_width < 0.4).all()
    slope = np.abs(np.diff(templates.distance, axis=3)) * typefaces.BOX
    assert slope.max() < 2.1, "one pixel on, the distance to the outline changes by about one pixel at most"


def test_a_batch_costs_less_than_10_ms():
    source = glyphs.open()
    source.images(range(128))
    start = time.process_time()
    for batch in range(10):
        source.__getitems__(range(batch * 128, batch * 128 + 128))
    assert (time.process_time() - start) / 10 < 0.010


@pytest.fixture(scope="module")
def alike():
    return sources.open_source("glyphs", "validation", lookalikes=True)


def test_lookalikes_are_every_class_an_example_may_be_taken_for(alike):
    plain = sources.open_source("glyphs", "validation")
    examples = alike.__getitems__(range(1000))
    sets = {frozenset(members) for members in glyphs.LOOKALIKES}
    for index, example in enumerate(examples):
        names = [alike.class_names[label] for label in example["label"]]
        own = plain.class_names[plain.labels()[index]]
        assert example["label"].dtype == np.int32 and names == sorted(names, key=alike.class_names.index)
        assert not names or own in names
        assert len(names) < 2 or frozenset(names) in sets
        assert len(names) != 1 or own not in "".join(glyphs.LOOKALIKES)
    assert np.array_equal(examples[7]["image"], plain[7]["image"]), "only the labels differ"
    assert {len(example["label"]) for example in examples} == {0, 1, 2, 3}


def test_one_example_in_fifty_has_no_label_always_the_same(alike):
    without = [index for index, e in enumerate(alike.__getitems__(range(2000))) if not len(e["label"])]
    assert 0.01 < len(without) / 2000 < 0.03
    assert [len(alike[index]["label"]) for index in without[:5]] == [0] * 5
    assert without[:4] == [8, 41, 77, 142], "golden: a result on them must stay comparable"
    other = sources.open_source("glyphs", "validation", lookalikes=True, seed=1)
    assert without != [index for index, e in enumerate(other.__getitems__(range(2000))) if not len(e["label"])]


def test_lookalikes_are_another_source(alike):
    plain = sources.open_source("glyphs", "validation")
    assert alike.fingerprint == f"{plain.fingerprint}:lookalikes" and alike.multilabel and not plain.multilabel
    batch = next(iter(pipeline.Evaluate(alike, "decode | value_range(-1, 1) | multihot(62)", batch_size=100)))
    assert batch["label"].shape == (100, 62) and set(batch["label"].sum(1).tolist()) == {0, 1, 2, 3}
    with pytest.raises(types.InputError, match="one label"):
        alike.labels()


def test_every_lookalike_is_among_the_most_similar_pairs_of_characters():
    """Overlap of the templates, brought to one thickness: each member of a set is near another one, far above most."""
    templates = typefaces.templates()
    grow = np.maximum(0.12 - templates.half_width, 0)[..., None, None]
    ink = (templates.distance < grow).reshape(len(typefaces.FACES), 62, -1).astype(np.float32)
    shared = ink @ ink.transpose(0, 2, 1)
    area = ink.sum(2)
    overlap = np.median(shared / (area[:, :, None] + area[:, None] - shared), axis=0)
    threshold = np.quantile(overlap[np.triu_indices(62, 1)], 0.96)
    for members in glyphs.LOOKALIKES:
        at = [glyphs.CLASS_NAMES.index(name) for name in members]
        among = overlap[np.ix_(at, at)] - np.eye(len(at))
        assert among.max(1).min() > threshold, members


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "test"}, "glyphs has the splits train, validation. Not: 'test'"),
        ({"image_size": 100}, "8 to 64 pixels a side. Asked: size=200000, image_size=100"),
        ({"size": 0}, "at least 1 example"),
        ({"image_sise": 16}, "does not take 'image_sise'. Did you mean 'image_size'"),
    ],
)
def test_bad_arguments_are_answered_with_the_rule(kwargs, message):
    with pytest.raises(types.InputError, match=message):
        sources.open_source("glyphs", **kwargs)


def test_an_index_out_of_range_is_an_error(source):
    with pytest.raises(IndexError, match="10000 examples"):
        source[10_000]


def test_the_random_words_are_those_of_splitmix64():
    """So that a corpus made years ago can be made again: the reference sequence of Vigna's splitmix64, seed 1234567."""
    reference = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert glyphs._scramble(state).tolist() == reference
