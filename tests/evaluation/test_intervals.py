"""The interval is that of an actual bootstrap, without one."""

import numpy as np
import pytest

from transformer_jax.evaluation import intervals


@pytest.mark.parametrize(("hits", "examples"), [(37, 50), (180, 200), (3, 11), (999, 1000)])
def test_it_is_the_percentile_bootstrap(hits, examples):
    outcomes = np.arange(examples) < hits
    rng = np.random.default_rng(0)
    means = np.sort([outcomes[rng.integers(examples, size=examples)].mean() for _ in range(20_000)])
    resampled = means[int(0.025 * len(means))], means[int(0.975 * len(means))]
    assert intervals.bootstrap(hits / examples, examples) == pytest.approx(resampled, abs=1.01 / examples)


def test_it_holds_the_stated_share_of_all_resamples():
    low, high = intervals.bootstrap(0.3, 500)
    means = np.random.default_rng(1).binomial(500, 0.3, 200_000) / 500
    assert 0.95 <= ((means >= low) & (means <= high)).mean() < 0.97
    narrow = intervals.bootstrap(0.3, 500, confidence=0.5)
    assert low < narrow[0] < 0.3 < narrow[1] < high


@pytest.mark.parametrize("examples", [1, 7, 50_000])
def test_at_the_ends_every_resample_is_the_same(examples):
    assert intervals.bootstrap(0.0, examples) == (0.0, 0.0)
    assert intervals.bootstrap(1.0, examples) == (1.0, 1.0)
