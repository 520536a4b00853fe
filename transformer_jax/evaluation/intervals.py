"""How far an accuracy may be off because the test examples are a sample: the bootstrap, without resampling."""

import scipy.stats


def bootstrap(mean: float, examples: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean of zeros and ones over that many examples.

    To draw `examples` of them with replacement and add them up is one draw of a binomial variable, so the quantiles of
    all resamples are those of Binomial(examples, mean), exactly. At 0 and 1 it has no width: every resample is the
    same. The mean of several runs over one test split (seeds, picks of shots) is taken for one run: the interval is
    then at least as wide as that of resampling the examples, and knows nothing of the spread between the runs.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = scipy.stats.binom.ppf([tail, 1.0 - tail], examples, mean)
    return float(low) / examples, float(high) / examples
