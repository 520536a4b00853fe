import functools

import jax
import numpy as np
import pytest

from transformer_jax.parallel import mesh
from transformer_jax.training import mixing

BATCH = 8
OWN = np.arange(BATCH)


def _told_apart(batch=BATCH, height=9, width=12):
    """Example i is 1 in channel i only, so that the mean of a mixed image's channel is that example's share in it."""
    image = np.eye(batch, dtype=np.float32)[:, None, None, :] * np.ones((1, height, width, 1), np.float32)
    return image, np.eye(batch, dtype=np.float32)


def _jit(**settings):
    """Compiled sooner rather than well: these programs run a few times."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(lambda *mixed: mixing.mix(*mixed, **settings), compiler_options=options)


@functools.cache
def _mix(setting):
    return _jit(**SETTINGS[setting])


@functools.cache
def _drawn(setting):
    """What 75 batches of 8 become."""
    image, target = jax.device_put(_told_apart())
    return jax.device_get([_mix(setting)(image, target, key) for key in jax.random.split(jax.random.key(0), 75)])


SETTINGS = {
    "either": dict(mixup=0.8, cutmix=1.0),
    "mixup of each": dict(mixup=0.8, per_example=True),
    "cutmix of each": dict(cutmix=1.0, per_example=True),
    "either of each": dict(mixup=0.8, cutmix=1.0, per_example=True, switch=0.25),
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


@every_setting
def test_the_targets_are_the_shares_of_the_pixels(setting):
    for image, target in _drawn(setting)[:12]:
        np.testing.assert_allclose(image.mean((1, 2), np.float64), target, atol=1e-6)
        np.testing.assert_allclose(target.sum(1), 1, rtol=1e-6)
        own, neighbours = np.diag(target), target[OWN, OWN - 1]
        np.testing.assert_allclose(own + neighbours, 1, rtol=1e-6)
        if not SETTINGS[setting].get("per_example"):
            assert np.ptp(own) < 1e-6


@every_setting
def test_shares_and_places_differ_between_batches_and_with_per_example_within_them(setting):
    found = _drawn(setting)[:12]
    assert len({target[0, 0] for _, target in found}) > 6
    within = [len(set(np.diag(target).tolist())) for _, target in found]
    assert (max(within) > 2) == bool(SETTINGS[setting].get("per_example"))


def test_mixup_keeps_at_least_half_of_an_example_in_every_pixel():
    for image, _ in _drawn("mixup of each")[:10]:
        own = image[OWN, :, :, OWN]
        assert own.min() >= 0.5 and np.ptp(own, axis=(1, 2)).max() < 1e-6


def test_a_large_alpha_mixes_halves_and_a_small_one_hardly_mixes():
    image, target = _told_apart(100, 1, 1)
    few, many = (
        np.diag(_jit(mixup=alpha, per_example=True)(image, target, jax.random.key(0))[1]).mean()
        for alpha in (0.01, 100.0)
    )
    assert few > 0.97 and many < 0.56


def test_cutmix_pastes_one_box_of_whole_pixels_anywhere():
    corners, areas = [], []
    for image, _ in _drawn("cutmix of each"):
        pasted = image[OWN, :, :, OWN - 1]
        assert set(np.unique(pasted)) <= {0, 1}
        for box in pasted:
            rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
            assert box.sum() == len(rows) * len(columns)
            if len(rows):
                assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
                corners.append((rows[0], columns[0], rows[-1], columns[-1]))
            areas.append(box.mean())
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    assert low[:2].tolist() == [0, 0] and high[2:].tolist() == [8, 11]
    # Uniform before the border cuts: side sqrt(u) of each axis, of which the image keeps 1 - side/4 on average.
    assert abs(np.mean(areas) - (1 / 2 - 2 / 4 * 2 / 5 + 1 / 16 / 3)) < 0.06


def test_the_switch_is_the_probability_of_cutmix():
    images = np.concatenate([image for image, _ in _drawn("either of each")])
    assert abs(np.mean([set(np.unique(image)) <= {0, 1} for image in images]) - 0.25) < 0.06


def test_nothing_is_mixed_when_both_are_off():
    image, target = jax.device_put(_told_apart(3))
    same = mixing.mix(image, target, jax.random.key(0))
    assert same[0] is image and same[1] is target


def test_one_device_and_eight_give_the_same_batch():
    setting = "either of each"
    image, target = _told_apart()
    sharding = jax.sharding.NamedSharding(mesh.make({"data": 8}), jax.sharding.PartitionSpec("data"))
    for key in jax.random.split(jax.random.key(3), 3):
        alone = _mix(setting)(image, target, key)
        spread = _mix(setting)(*jax.device_put((image, target), sharding), key)
        assert len(spread[0].sharding.device_set) == 8
        for one, eight in zip(alone, spread, strict=True):
            assert np.array_equal(one, eight)
