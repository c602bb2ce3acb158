"""The probe asks a model in the way it was trained."""

import pytest

from orchestrator.analysis.retraining import retraining_of
from training.config import MethodConfig
from training.methods import fine_tuning, mib, retraining, ssul, wilson


@pytest.mark.parametrize(
    ("method", "loss", "start"),
    [
        (mib.Config(), "cross_entropy", None),
        (fine_tuning.Config(), "cross_entropy", None),
        (fine_tuning.Config(loss="bce"), "bce", None),
        (wilson.Config(), "bce", None),
        (wilson.Config(initial_probability=0.01), "bce", 0.01),
        (fine_tuning.Config(loss="bce", initial_probability="shares"), "bce", None),
        (ssul.Config(), "bce", None),
    ],
)
def test_a_part_is_retrained_by_the_model_s_kind_of_loss(
    method: MethodConfig, loss: str, start: float | None
) -> None:
    found = retraining_of(method, "decoder")
    assert found == retraining.Config.model_validate(
        {"part": "decoder", "loss": loss, "initial_probability": start}
    )
