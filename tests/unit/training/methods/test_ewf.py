"""Check what EWF trains, and the mean that it publishes."""

import pytest
import torch
from pydantic import ValidationError

from tests.support.methods import LATER, build_batch, build_method, build_step
from training.config import MethodConfig
from training.iteration import build_optimizer, iterate, place
from training.loss_guard import LossGuard
from training.methods import (
    base,
    ewc,
    ewf,
    fine_tuning,
    icarl,
    joint,
    mib,
    plop,
    retraining,
    ssul,
    wilson,
)
from training.precision import autocast, gradient_scaler
from training.runtime import Runtime

CPU = torch.device("cpu")


def trained(config: ewf.Config) -> base.Method:
    """Return the method after one update of the weights."""
    document = build_step(config)
    method = place(build_method(document), CPU)
    exact = autocast("float64", CPU), gradient_scaler("float64", CPU)
    guard = LossGuard(Runtime(), 100)
    optimizer = build_optimizer(method, CPU)
    iterate(method, method, optimizer, guard, build_batch(document), LATER, *exact)
    return method


@pytest.mark.parametrize("share", [None, 0.25])
def test_each_tensor_of_the_previous_model_becomes_the_mean(share: float | None) -> None:
    method = trained(ewf.Config(trained_by=mib.Config(), share=share))
    assert isinstance(method, ewf.Method)
    before = {name: value.clone() for name, value in method.before.items()}
    after = {name: value.clone() for name, value in method.model.state_dict().items()}
    method.finish()
    new = share or (2 / 5) ** 0.5
    moved = set()
    for name, value in method.model.state_dict().items():
        if name not in before or "num_batches" in name:
            assert torch.equal(value, after[name])
            continue
        torch.testing.assert_close(value, (1 - new) * before[name] + new * after[name])
        if not torch.equal(value, before[name]):
            moved.add(name.split(".")[0] + ("*" if "running" in name else ""))
    # Of the earlier classifiers, MiB's initialisation moves the bias of background.
    assert moved == {"encoder", "encoder*", "head", "head*", "classifiers"}


def test_it_trains_as_its_method_does_with_the_earlier_classifiers_fixed() -> None:
    document = build_step(ewf.Config(trained_by=plop.Config()))
    method = place(build_method(document), CPU)
    alone = place(build_method(build_step(plop.Config())), CPU)
    for each in (method, alone):
        each.prepare(lambda: [build_batch(document)])
    batch = build_batch(document)
    losses, wanted = method(batch, LATER), alone(batch, LATER)
    assert {name: loss.item() for name, loss in losses.items()} == {
        name: loss.item() for name, loss in wanted.items()
    }
    learning = {name for name, value in method.model.named_parameters() if value.requires_grad}
    everything = {name for name, _ in method.model.named_parameters()}
    assert everything - learning == {"classifiers.0.weight", "classifiers.0.bias"}
    assert "trained_by.thresholds" in method.state_dict(), "a checkpoint holds it"


@pytest.mark.parametrize(
    "method",
    [
        ewc.Config(weight=1),
        wilson.Config(),
        joint.Config(),
        ssul.Config(),
        retraining.Config(),
        fine_tuning.Config(reserved_channels=3),
        None,
    ],
)
def test_a_method_that_needs_more_than_masks_is_refused(method: MethodConfig | None) -> None:
    other = method or ewf.Config(trained_by=mib.Config())
    with pytest.raises(ValidationError, match="averages what another method trains"):
        ewf.Config(trained_by=other)


def test_a_start_from_pixel_shares_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"trained_by\.initial_probability one number"):
        ewf.Config(trained_by=icarl.Config(initial_probability="shares"))
    ewf.Config(trained_by=icarl.Config(initial_probability=0.01))


def test_the_document_is_read_back_with_its_training_methods_recipe() -> None:
    config = ewf.Config(trained_by=mib.Config()).with_current_recipe()
    assert config.trained_by.recipe == mib.Config().current_recipe == 2
    assert build_step(config).method == config
    text = build_step(config).model_dump_json()
    assert type(build_step(config)).model_validate_json(text).method == config
