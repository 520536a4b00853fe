"""The tables of an evaluation's report, against counts by hand."""

import numpy as np
import pytest

from transformer_jax import types
from transformer_jax.tools import judgement

NAMES = ("ant", "bee", "cat", "dog")
LABEL = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 2, 2, 1, 0, -1])


def test_the_worst_classes_come_first_and_empty_ones_not_at_all():
    outcome = judgement.Outcome.of({"label": LABEL, "predicted": PREDICTED})
    assert judgement.worst(outcome, NAMES) == [
        ("class", "accuracy", "right", "examples"),
        ("cat", "0.0 %", "0", "2"),
        ("bee", "33.3 %", "1", "3"),
        ("ant", "75.0 %", "3", "4"),
    ]
    assert len(judgement.worst(outcome, NAMES, count=2)) == 3


def test_confusions_are_counted_and_shared_among_the_true_class():
    outcome = judgement.Outcome.of({"label": LABEL, "predicted": PREDICTED})
    head, first, *rest = judgement.confusions(outcome, NAMES)
    assert first == ("bee", "cat", "2", "66.7 %")
    assert set(rest) == {
        ("ant", "bee", "1", "25.0 %"),
        ("cat", "ant", "1", "50.0 %"),
        ("cat", "no number", "1", "50.0 %"),
    }
    matrix = judgement.confusion(outcome, 4)
    np.testing.assert_array_equal(matrix, [[3, 1, 0, 0], [0, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


def test_an_example_of_several_labels_counts_for_each_and_one_without_for_none():
    label = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    outcome = judgement.Outcome.of({"label": label, "predicted": np.array([0, 3, 0, -1])})
    np.testing.assert_array_equal(outcome.example, [0, 0, 2, 2, 3, 3])
    np.testing.assert_array_equal(outcome.label, [0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(outcome.right, [True, True, False, False, False, False])
    assert judgement.worst(outcome, NAMES)[-1] == ("ant", "100.0 %", "1", "1")


def test_a_perfect_model_has_no_confusions():
    outcome = judgement.Outcome.of({"label": LABEL, "predicted": LABEL})
    assert len(judgement.confusions(outcome, NAMES)) == 1


def test_a_file_is_no_directory_for_a_report(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(types.InputError, match="--report must be a directory"):
        judgement.folder(str(tmp_path / "file"))
