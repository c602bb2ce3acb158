"""Check that joint training has the loss of step 0."""

from typing import Literal

import pytest

from tests.support.methods import START, build_batch, build_method, build_step
from training.methods import fine_tuning, joint


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_joint_training_learns_as_step_0_does(loss: Literal["cross_entropy", "bce"]) -> None:
    groups = ((1, 2, 3, 4, 5),)
    one = build_step(joint.Config(loss=loss), groups)
    other = build_step(fine_tuning.Config(loss=loss), groups)
    batch = build_batch(one)
    assert build_method(one)(batch, START) == build_method(other)(batch, START)
