"""A classifier of sigmoids starts where its document says, and nothing else changes."""

import pytest
import torch
from pydantic import ValidationError

from tests.support.methods import build_method, build_step
from training.binary_method import BinaryMethodConfig
from training.config import MethodConfig
from training.initial_bias import initial_bias
from training.methods import fine_tuning, icarl, joint, lwf_mc, mib, offline, plop, wilson
from training.step_config import StepConfig

BCE = fine_tuning.Config(loss="bce", initial_probability=0.01)
LATER = [
    BCE,
    icarl.Config(initial_probability=0.01),
    lwf_mc.Config(initial_probability=0.01),
    offline.Config(initial_probability=0.01, classifier_epochs=1),
    wilson.Config(initial_probability=0.01),
]


def test_every_class_of_step_0_starts_at_the_probability_and_background_at_the_rest() -> None:
    method = build_method(build_step(BCE, groups=((1, 2, 3),)))
    expected = torch.tensor([0.99, 0.01, 0.01, 0.01]).double()
    bias = method.model.get_parameter("classifiers.0.bias")
    torch.testing.assert_close(bias.sigmoid(), expected)


@pytest.mark.parametrize("config", LATER, ids=lambda config: config.name)
def test_new_channels_start_at_the_probability_and_others_as_the_previous_model_left_them(
    config: BinaryMethodConfig,
) -> None:
    method = build_method(build_step(config))
    new = method.model.get_parameter("classifiers.1.bias")
    torch.testing.assert_close(new.sigmoid(), torch.full((2,), 0.01).double())
    kept = method.model.get_parameter("classifiers.0.bias")
    assert torch.equal(kept, method.previous.get_parameter("classifiers.0.bias"))


def test_the_bias_changes_no_other_weight() -> None:
    plain = build_method(build_step(wilson.Config())).state_dict()
    started = build_method(build_step(wilson.Config(initial_probability=0.01))).state_dict()
    changed = {name for name, value in plain.items() if not torch.equal(value, started[name])}
    assert changed == {"model.classifiers.1.bias"}


def test_shares_start_each_channel_at_its_own() -> None:
    config = fine_tuning.Config(loss="bce", initial_probability=0.01)
    step = build_step(config, groups=((1, 2, 3),))
    shares = (0.7, 0.1, 0.15, 0.05)
    asked = config.model_copy(update={"initial_probability": "shares"})
    task = step.task.model_copy(update={"pixel_shares": shares})
    step = StepConfig.model_validate({**dict(step), "method": asked, "task": task})
    found = initial_bias(step)
    assert found is not None
    torch.testing.assert_close(found.sigmoid(), torch.tensor(shares))


def test_the_papers_start_is_random() -> None:
    assert initial_bias(build_step(fine_tuning.Config(loss="bce"), groups=((1, 2),))) is None
    assert initial_bias(build_step(mib.Config())) is None


@pytest.mark.parametrize("method", [fine_tuning.Config, joint.Config])
def test_a_softmax_has_no_such_start(method: type[MethodConfig]) -> None:
    with pytest.raises(ValidationError, match="this one is a softmax"):
        method.model_validate({"initial_probability": 0.01})


@pytest.mark.parametrize("method", [mib.Config, plop.Config])
def test_methods_with_a_start_of_their_own_have_no_such_field(method: type[MethodConfig]) -> None:
    assert "initial_probability" not in method.model_fields


@pytest.mark.parametrize("probability", [0, 1, -0.1])
def test_a_probability_is_between_0_and_1(probability: float) -> None:
    with pytest.raises(ValidationError):
        wilson.Config.model_validate({"initial_probability": probability})


def test_a_weak_step_may_not_know_shares() -> None:
    with pytest.raises(ValidationError, match="image labels and may not know how many pixels"):
        build_step(wilson.Config(initial_probability="shares"))


def test_shares_that_are_asked_for_stand_in_the_document() -> None:
    with pytest.raises(ValidationError, match="must name the share of each channel"):
        build_step(icarl.Config(initial_probability="shares"))
