"""How sure an accuracy is: the 95 % percentile bootstrap of a mean of zeros and ones, without resampling.

Drawing N examples with replacement from N of which k are right gives Binomial(N, k / N) right ones: that is the
bootstrap distribution itself, so its quantiles are exact (Efron and Tibshirani, An Introduction to the Bootstrap, 5.2).
"""

import scipy.stats

from transformer_jax import types

LEVEL = 0.95


def bootstrap(accuracy: float, examples: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The lowest and highest accuracy of the interval that holds `level` of the bootstrap distribution."""
    if examples < 1 or not 0 <= accuracy <= 1:
        raise types.InputError(
            f"An interval needs an accuracy in 0..1 of at least one example: {accuracy} of {examples}."
        )
    tail = (1 - level) / 2
    low, high = scipy.stats.binom.ppf([tail, 1 - tail], examples, accuracy)
    return float(low) / examples, float(high) / examples
