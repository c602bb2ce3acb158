"""Test forgetting and transfer against cases worked out by hand."""

import pytest

from training.continual_metrics import continual, retention
from training.metrics import Scores


def test_retention_by_hand() -> None:
    kept = retention([None, 0.6, 0.7, 0.5])
    assert kept.forgetting_first_minus_last == pytest.approx(0.1)
    assert kept.forgetting_best_minus_last == pytest.approx(0.2)
    assert kept.backward_transfer == pytest.approx(-0.1)
    assert retention([0.5, 0.8]).forgetting_best_minus_last == pytest.approx(-0.3), (
        "best is the best of the earlier steps"
    )
    for short in ([], [0.5], [None, 0.5], [None, None]):
        assert set(retention(short).model_dump().values()) == {None}


def test_continual_means() -> None:
    """Forgetting averages old classes, backward transfer old groups; background enters neither."""
    iou: list[dict[int, float | None]] = [
        {0: 0.9, 1: 0.8, 2: 0.6},
        {0: 0.5, 1: 0.5, 2: 0.7, 3: 0.4},
        {0: 0.4, 1: 0.4, 2: 0.5, 3: 0.3, 4: 0.9},
    ]
    groups = [(0.7,), (0.6, 0.4), (0.45, 0.3, 0.9)]
    means = [0.75, 0.5, 0.5]
    blank = dict.fromkeys(set(Scores.model_fields) - {"images", "iou", "miou_groups", "miou_all"})
    blank["miou_all_without_background"] = 0.6
    steps = [
        Scores(**blank, images=1, iou=i, miou_groups=g, miou_all=m)
        for i, g, m in zip(iou, groups, means, strict=True)
    ]
    chain = continual(steps)
    assert chain.forgetting_first_minus_last == pytest.approx((0.4 + 0.1 + 0.1) / 3)
    assert chain.forgetting_best_minus_last == pytest.approx((0.4 + 0.2 + 0.1) / 3)
    assert chain.backward_transfer == pytest.approx((-0.25 - 0.1) / 2)
    assert chain.average_over_steps == pytest.approx(1.75 / 3)
    assert chain.average_over_steps_without_background == pytest.approx(0.6)
    assert chain.classes[0].forgetting_first_minus_last == pytest.approx(0.5)
    assert chain.classes[4].forgetting_first_minus_last is None
    alone = continual(steps[:1])
    assert alone.forgetting_first_minus_last is None
    assert alone.average_over_steps == 0.75
