"""Check the penalty of EWC, PI and RW, its gradient, and which settings are refused."""

import pytest
import torch
from pydantic import ValidationError

from tests.support.importance import (
    MEASURES,
    PENALTIES,
    build_batch,
    build_method,
    build_step,
    random_importance,
)
from training.config import MethodConfig
from training.methods import base, ewc, rw

PROGRESS = base.Progress(0, 10, 10)


@pytest.mark.parametrize("config", PENALTIES, ids=lambda config: config.name)
def test_the_penalty_is_the_weighted_distance_and_so_is_its_gradient(config: MethodConfig) -> None:
    """Importance is scaled to 0..1 in each tensor; before_update adds the penalty's gradient."""
    known = random_importance()
    method = build_method(build_step(config), known)
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    penalty = 0.0
    start = 0
    pulls = []
    for now, before in zip(method.model.parameters(), method.previous.parameters(), strict=False):
        strength = torch.zeros(now.numel(), dtype=torch.float64)
        for name in MEASURES[config.name]:
            vector = known[f"importance.{name}"][start : start + now.numel()]
            strength += (vector - vector.min()) / (vector.max() - vector.min() + 1e-8)
        distance = (now - before).detach().reshape(-1)
        penalty += 3 * float((strength * distance**2).sum())
        pulls.append((6 * strength * distance).view_as(now))
        start += now.numel()
    losses = method(build_batch(0), PROGRESS)
    assert losses["penalty"].item() == pytest.approx(penalty)
    torch.stack(list(losses.values())).sum().backward()
    parameters = list(method.model.parameters())
    own = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    with torch.no_grad():
        method.before_update(PROGRESS)
    for parameter, gradient, pull in zip(parameters, own, [*pulls, 0, 0], strict=True):
        torch.testing.assert_close(parameter.grad, gradient + pull)


def test_a_penalty_that_makes_sgd_diverge_is_refused() -> None:
    """The published weight fits the published learning rate, and not ten times that rate."""
    build_step(ewc.Config(), encoder_lr=0.001, head_lr=0.001)
    message = r"step 1 would diverge: at a learning rate of 0\.01 'ewc' .* to 0\.001, or"
    with pytest.raises(ValidationError, match=message):
        build_step(ewc.Config())
    limit = 2 * 1.9 / 2.8
    # A parabola of curvature 1.
    for rate, grows in [(0.99 * limit, False), (1.01 * limit, True)]:
        value = 1.0
        velocity = 0.0
        for _ in range(2000):
            velocity = 0.9 * velocity + value
            value -= rate * (value + 0.9 * velocity)
        assert (abs(value) > 1) is grows


def test_rw_adds_up_two_measures_and_diverges_at_half_the_weight() -> None:
    assert rw.Config(weight=1).curvature == 2 * ewc.Config(weight=1).curvature
    build_step(ewc.Config(weight=600), encoder_lr=0.001, head_lr=0.001)
    with pytest.raises(ValidationError, match="step 1 would diverge"):
        build_step(rw.Config(weight=600), encoder_lr=0.001, head_lr=0.001)
