"""Test prediction breakdowns by hand and against a walk over the pixels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.confusions import count_split
from training.metrics import Groups, confusion_matrix, wilson
from training.prediction_breakdown import PredictionBreakdown, prediction_breakdown

GROUPS: Groups = ((3, 1), (4,), (2, 6))


def breakdown(matrix: np.ndarray, groups: Groups, classes: Sequence[int]) -> PredictionBreakdown:
    """Return the breakdown of classes that have pixels."""
    found = prediction_breakdown(matrix, groups, classes)
    assert found is not None
    return found


def test_shares_of_a_case_by_hand() -> None:
    truth = np.array([[1] * 10 + [2] * 2 + [3] * 4 + [0] * 4], np.uint8)
    predicted = np.array(
        [[1] * 4 + [0] * 3 + [3] * 2 + [2] + [2, 2] + [3, 3, 4, 0] + [0, 0, 1, 3]], np.uint8
    )
    groups = ((1, 2), (3, 4))
    matrix, _ = confusion_matrix(count_split([truth], [predicted]), groups, wilson())
    assert breakdown(matrix, groups, [1]).model_dump() == {
        "right": 0.4,
        "background": 0.3,
        "new": 0.2,
        "other_old": 0.1,
    }
    assert breakdown(matrix, groups, [1, 2]).right == pytest.approx(6 / 12)
    assert breakdown(matrix, groups, [3]).model_dump() == {
        "right": 0.5,
        "background": 0.25,
        "new": 0.25,
        "other_old": 0.0,
    }
    assert breakdown(matrix, groups, [0]).model_dump() == {
        "right": 0.5,
        "background": 0.0,
        "new": 0.25,
        "other_old": 0.25,
    }
    assert prediction_breakdown(matrix, groups, [4]) is None


def kind_of(truth: int, predicted: int) -> str:
    """Return the share that a pixel of a known class belongs to."""
    if predicted == truth:
        return "right"
    if predicted == 0:
        return "background"
    return "new" if predicted in GROUPS[-1] else "other_old"


def test_shares_equal_a_walk_over_pixels() -> None:
    """Use groups in another order than their ids, void, and a class (5) of no group."""
    rng = np.random.default_rng(0)
    truth = rng.choice(np.array([0, 1, 2, 3, 4, 5, 6, 255], np.uint8), (40, 40))
    predicted = rng.choice(np.array([0, 1, 2, 3, 4, 6], np.uint8), (40, 40))
    matrix, _ = confusion_matrix(count_split([truth], [predicted]), GROUPS, wilson())
    for classes in ([3, 1], [4], [2, 6], [1, 4, 6]):
        counts: Counter[str] = Counter(right=0, background=0, new=0, other_old=0)
        for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if pair[0] in classes:
                counts[kind_of(*pair)] += 1
        total = sum(counts.values())
        found = breakdown(matrix, GROUPS, classes)
        assert found.model_dump() == pytest.approx(
            {kind: count / total for kind, count in counts.items()}, abs=1e-15
        )
        assert sum(found.model_dump().values()) == pytest.approx(1, abs=1e-15)
