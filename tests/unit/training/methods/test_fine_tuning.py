"""What the mean over pixels counts where void is ignored."""

import pytest

from tests.support.methods import START, build_batch, build_method, build_step
from training.methods import fine_tuning


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_the_mean_is_over_labelled_pixels_or_over_all(loss: str) -> None:
    labelled = fine_tuning.Config.model_validate({"loss": loss})
    over_all = labelled.model_copy(update={"mean_over": "all"})
    step = build_step(labelled)
    batch = build_batch(step)
    batch.masks[:, :24] = 255
    found = build_method(step)(batch, START)["segmentation"].item()
    counted = build_method(build_step(over_all))(batch, START)["segmentation"].item()
    # A quarter of the rows has labels.
    assert counted == pytest.approx(found / 4)


def test_without_void_both_are_the_same() -> None:
    batch = build_batch(build_step(fine_tuning.Config()))
    losses = [
        build_method(build_step(config))(batch, START)["segmentation"].item()
        for config in (fine_tuning.Config(), fine_tuning.Config(mean_over="all"))
    ]
    assert losses[0] == pytest.approx(losses[1])
