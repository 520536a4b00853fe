import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.tools import attention_maps


def random(layers=3, heads=2, length=7, seed=0):
    """Attention whose rows sum to one."""
    weights = np.random.default_rng(seed).exponential(size=(layers, heads, length, length))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def pooling(*rows):
    return np.array(rows, np.float32)


def test_rollout_of_two_layers_by_hand():
    layers = np.zeros((2, 2, 2, 2), np.float32)
    layers[0] = [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]  # mean [[.5, .5], [0, 1]], with the identity [[.75, .25], [0, 1]]
    layers[1] = [[[0, 1], [1, 0]], [[0, 1], [1, 0]]]  # mean [[0, 1], [1, 0]], with the identity [[.5, .5], [.5, .5]]
    np.testing.assert_array_equal(attention_maps.rollout(layers), [[0.375, 0.625], [0.375, 0.625]])


def test_rollout_of_attention_to_oneself_is_the_identity():
    layers = np.broadcast_to(np.eye(5, dtype=np.float32), (4, 3, 5, 5))
    np.testing.assert_array_equal(attention_maps.rollout(layers), np.eye(5))


def test_rollout_of_even_attention_is_even_over_all_other_tokens():
    length, depth = 8, 3
    found = attention_maps.rollout(np.full((depth, 2, length, length), 1 / length, np.float32))
    stays = 0.5**depth  # what went only through the residual connections
    np.testing.assert_allclose(found, stays * np.eye(length) + (1 - stays) / length, atol=1e-7)
    on_patches = attention_maps.on_grid(found[0], (1, 7))
    np.testing.assert_allclose(on_patches, np.full((1, 7), 1 / 7), atol=1e-7)


def test_rows_of_a_rollout_sum_to_one_and_so_does_the_relevance():
    layers = random()
    np.testing.assert_allclose(attention_maps.rollout(layers).sum(axis=-1), 1, atol=1e-6)
    gap = attention_maps.Attention(layers, pooling([0, 0.25, 0.25, 0.25, 0.25, 0, 0]))
    assert attention_maps.relevance(gap).sum() == pytest.approx(1, abs=1e-6)


def test_relevance_reads_the_rows_that_are_pooled():
    layers = random()
    rolled = attention_maps.rollout(layers)
    token = attention_maps.Attention(layers, pooling([1, 0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(attention_maps.relevance(token), rolled[0], atol=1e-12)
    mean = attention_maps.Attention(layers, pooling([0, 0, 0, 0.25, 0.25, 0.25, 0.25]))
    np.testing.assert_allclose(attention_maps.relevance(mean), rolled[3:].mean(axis=0), atol=1e-12)
    probe = attention_maps.Attention(layers, pooling([1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]))
    np.testing.assert_allclose(attention_maps.relevance(probe), (rolled[0] + rolled[6]) / 2, atol=1e-12)


def test_heads_are_those_of_the_last_layer_or_of_the_attention_that_pools():
    layers = random()
    token = attention_maps.Attention(layers, pooling([1, 0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(attention_maps.last_heads(token), layers[-1, :, 0], atol=1e-7)
    probe = attention_maps.Attention(layers, pooling([1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]))
    np.testing.assert_array_equal(attention_maps.last_heads(probe), probe.pooling)


def test_tokens_before_the_patches_are_left_out_and_rows_come_before_columns():
    weights = np.array([[0.9, 0.04, 0, 0.01, 0.02, 0.03, 0.0, 0.0]], np.float32)  # class token, register, 2 x 3 patches
    found = attention_maps.on_grid(weights, (2, 3))
    np.testing.assert_allclose(found, [[[0, 1 / 6, 2 / 6], [3 / 6, 0, 0]]], atol=1e-6)


def test_patches_without_any_weight_are_even():
    np.testing.assert_array_equal(attention_maps.on_grid(np.array([1.0, 0, 0, 0, 0]), (2, 2)), np.full((2, 2), 0.25))


def test_the_overlay_is_brightest_where_the_weight_is():
    image, heat = np.full((40, 60, 3), 100, np.uint8), np.zeros((2, 3))
    heat[1, 2] = 1
    drawn = attention_maps.overlay(image, heat)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    row, column = np.unravel_index(drawn.astype(int).sum(axis=2).argmax(), (40, 60))
    assert row >= 20 and column >= 40
    assert (drawn[:10, :20] == [40, 40, 42]).all()  # two fifths of the image, three of the darkest colour


def test_a_sheet_shows_the_input_the_rollout_and_every_head():
    found = attention_maps.Attention(random(heads=3), pooling([1, 0, 0, 0, 0, 0, 0]))
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    page = np.asarray(attention_maps.sheet(image, found, (2, 3), title="a class with a very long name " * 5))
    assert page.shape == (2 * (4 * 48 + 18) + 4, 3 * (4 * 48 + 4) + 4, 3)  # 5 pictures in 2 rows of 3
    np.testing.assert_array_equal(page[4 : 4 + 128 : 4, 4 : 4 + 192 : 4], image)


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), ((-2.0, -1.5, -1.0), (2.0, 2.5, 3.0)), (0.0, 255.0)])
def test_pixels_in_the_range_of_the_model_are_seen_as_they_were(pixel_range):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    low, high = map(np.array, pixel_range)
    scaled = (image / 255 * (high - low) + low).astype(np.float32)
    np.testing.assert_array_equal(attention_maps.visible(scaled, pixel_range), image)
    np.testing.assert_array_equal(attention_maps.visible(image, pixel_range), image)


def test_pixels_of_an_unknown_range_are_stretched_and_grey_ones_are_shown_grey():
    found = attention_maps.visible(np.array([[[3.0], [5.0]]], np.float32), None)
    np.testing.assert_array_equal(found, [[[0, 0, 0], [255, 255, 255]]])


def test_channels_that_are_no_colours_are_refused():
    with pytest.raises(types.InputError, match="1 or 3 channels: this model takes 4"):
        attention_maps.visible(np.zeros((2, 2, 4), np.uint8), None)
