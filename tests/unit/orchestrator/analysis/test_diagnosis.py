"""An analysis of made-up chains finds the known causes of forgetting."""

import pytest

from orchestrator.analysis.diagnosis import analyse
from orchestrator.records.results import ChainResult
from tests.support.analyses import answers


def test_breakdowns_are_of_the_earlier_classes(chain: ChainResult):
    analysis = analyse(chain, chain.steps[0], chain.steps[1], answers(1.0))
    assert analysis.breakdown_after is not None
    assert analysis.breakdown_after.model_dump() == pytest.approx(
        {"right": 0.3, "background": 0.5, "new": 0.15, "other_old": 0.05}
    )
    assert analysis.background_taken == pytest.approx(0.1)


def test_iou_of_the_earlier_classes_before_and_after(chain: ChainResult):
    analysis = analyse(chain, chain.steps[0], chain.steps[1], answers(1.0))
    assert analysis.before.earlier == pytest.approx(1.0)
    assert analysis.before.new is None
    assert analysis.after.earlier == pytest.approx((30 / 50 + 0 / 55) / 2)
    assert analysis.after.new == pytest.approx(20 / 45)
