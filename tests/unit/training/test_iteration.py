"""Check how a method is made ready to train, and what one iteration does."""

import pytest
import torch

from tests.support.methods import LATER, build_batch, build_method, build_step
from training.iteration import build_optimizer, iterate, method_class, place
from training.loss_guard import LossGuard
from training.methods import fine_tuning, mib, wilson
from training.models.head import Head
from training.models.norm import BatchNorm
from training.precision import autocast, gradient_scaler
from training.runtime import Runtime

CPU = torch.device("cpu")
GPU = torch.device("cuda")


def test_a_document_names_its_class() -> None:
    assert method_class(fine_tuning.Config()) is fine_tuning.Method


def test_the_previous_model_is_folded_and_the_own_is_not() -> None:
    method = place(build_method(build_step(mib.Config())), CPU)
    left = [module for module in method.previous.modules() if isinstance(module, BatchNorm)]
    own = [module for module in method.model.modules() if isinstance(module, BatchNorm)]
    assert len(left) < len(own)
    assert all(module.training for module in own)


def test_a_frozen_encoder_has_no_gradient() -> None:
    document = build_step(mib.Config())
    optimization = document.optimization.model_copy(update={"frozen": "encoder"})
    document = document.model_copy(update={"optimization": optimization})
    method = place(build_method(document), CPU)
    assert not method.model.encoder.training
    assert method.model.head.training
    assert not any(parameter.requires_grad for parameter in method.model.encoder.parameters())


def test_an_iteration_moves_the_weights_at_the_scheduled_rates() -> None:
    document = build_step(wilson.Config(warmup_epochs=1))
    method = place(build_method(document), CPU)
    optimizer = build_optimizer(method, CPU)
    head = method.model.head
    assert isinstance(head, Head)
    weights = head.reduce.weight.clone()
    batch = build_batch(document)
    guard = LossGuard(Runtime(), 100)
    exact = autocast("float64", CPU), gradient_scaler("float64", CPU)
    losses = iterate(method, method, optimizer, guard, batch, LATER, *exact)
    assert "segmentation" in losses
    assert not torch.equal(weights, head.reduce.weight)
    factor = method.learning_rate_factor(LATER, "head")
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["head"] == pytest.approx(document.optimization.head_lr * factor)


def test_momentum_is_zero_where_the_first_gradients_of_float16_overflow() -> None:
    method = place(build_method(build_step(mib.Config())), CPU)
    optimizer = build_optimizer(method, GPU)  # the fused kernel of a CPU does the same
    trained = [each for each in method.parameters() if each.requires_grad]
    before = [each.detach().clone() for each in trained]
    assert all("momentum_buffer" in optimizer.state[each] for each in trained)
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, float("inf"))
    optimizer.param_groups[0]["lr"] = 0.1
    overflow = {"found_inf": torch.ones(()), "grad_scale": torch.ones(())}
    for name, value in overflow.items():
        setattr(optimizer, name, value)  # as GradScaler does
    optimizer.step()
    for name in overflow:
        delattr(optimizer, name)
    assert all(torch.equal(*pair) for pair in zip(trained, before, strict=True))
    assert not any(optimizer.state[each]["momentum_buffer"].any() for each in trained)
