"""Whether an accuracy is what guessing gives: the sign of weights that were not loaded, or of shuffled labels."""

import logging
import math

import numpy as np
from jaxtyping import Int

_log = logging.getLogger(__name__)


def warn(
    name: str, accuracy: float, *, examples: int, classes: int = 0, labels: Int[np.ndarray, " examples"] | None = None
) -> str | None:
    """Logs and returns a warning when `accuracy` is not above chance, by three standard errors.

    Chance is guessing among `classes`, or the most frequent of the `labels` where they are given.
    """
    level = _frequent(labels) if labels is not None else 1 / max(classes, 1)
    if level == 1.0:
        return None  # with one class there is nothing to be better at
    error = math.sqrt(level * (1 - level) / examples)
    if accuracy > level + 3 * error:
        return None
    rule = "the most frequent label" if labels is not None else f"guessing among {classes} classes"
    message = (
        f"{name}: accuracy {100 * accuracy:.2f} % on {examples} examples is no better than {rule}"
        f" ({100 * level:.2f} %)."
        " Check that the weights were loaded and fit the preprocessing, and that the labels belong to the images."
    )
    _log.warning(message)
    return message


def _frequent(labels: np.ndarray) -> float:
    return float(np.max(np.bincount(labels)) / len(labels))
