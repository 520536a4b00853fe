"""Accuracy at chance is warned about, above it is not."""

import numpy as np
import pytest

from transformer_jax.evaluation import chance


@pytest.mark.parametrize(
    ("accuracy", "examples", "classes", "warned"),
    [
        (0.001, 50_000, 1000, True),
        (0.0, 1000, 10, True),
        (0.12, 1000, 10, True),
        (0.15, 1000, 10, False),
        (0.9, 9, 2, True),
    ],
)
def test_within_three_standard_errors(accuracy, examples, classes, warned, caplog):
    message = chance.warn("val", accuracy, examples=examples, classes=classes)
    assert (message is not None) == warned == bool(caplog.records)
    if message is not None:
        assert f"no better than guessing among {classes} classes" in message and "weights were loaded" in message


def test_unequal_classes_raise_the_bar():
    labels = np.array([0] * 900 + [1] * 100)
    assert "most frequent label (90.00 %)" in str(chance.warn("val", 0.9, examples=1000, labels=labels))
    assert chance.warn("val", 0.95, examples=1000, labels=labels) is None


def test_one_class_is_nothing_to_warn_about():
    assert chance.warn("val", 1.0, examples=10, classes=1) is None
