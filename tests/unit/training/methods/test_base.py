"""Check what all methods have in common: gradients, the start, parameter groups, documents."""

import pytest
import torch

from tests.support.methods import LATER, MODEL, START, build_batch, build_method, build_step
from training import fit
from training.config import Augmentation, MethodConfig, Optimization, Task
from training.methods import ewc, fine_tuning, icarl, ilt, lwf, lwf_mc, mib, pi, rw, wilson
from training.runtime import Runtime
from training.step_config import StepConfig

INCREMENTAL = [
    fine_tuning.Config(),
    fine_tuning.Config(importance=True),
    lwf.Config(),
    lwf_mc.Config(),
    ilt.Config(),
    icarl.Config(),
    ewc.Config(weight=10),
    pi.Config(weight=10),
    rw.Config(weight=10),
    mib.Config(),
    wilson.Config(),
]


@pytest.mark.parametrize("config", INCREMENTAL, ids=lambda config: config.name)
def test_every_parameter_gets_a_gradient_and_the_previous_model_none(config: MethodConfig) -> None:
    document = build_step(config)
    method = build_method(document)
    for progress in (START, LATER):
        method.zero_grad()
        losses = method(build_batch(document), progress)
        assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(parameter.grad is not None for parameter in method.parameters())
    assert not method.previous.training
    assert all(not parameter.requires_grad for parameter in method.previous.parameters())
    assert not any(name.startswith("unregistered") for name in method.state_dict())


@pytest.mark.parametrize("config", INCREMENTAL, ids=lambda config: config.name)
def test_a_step_starts_from_the_previous_model(config: MethodConfig) -> None:
    document = build_step(config)
    method = build_method(document).eval()
    method.previous.eval()
    images = build_batch(document).images
    now, before = method.model(images), method.previous(images)
    torch.testing.assert_close(now.features, before.features)
    torch.testing.assert_close(now.logits[:, 1:4], before.logits[:, 1:4])


def test_parameter_groups_hold_every_parameter_once() -> None:
    for config in INCREMENTAL:
        method = build_method(build_step(config))
        grouped = []
        for group in method.parameter_groups():
            grouped += [id(parameter) for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(parameter) for parameter in method.parameters())


def test_random_start_follows_from_the_seed() -> None:
    document = build_step(fine_tuning.Config(), groups=((1, 2, 3),))
    other = document.model_copy(update={"seed": 7})
    states = []
    for step in (document, document, other):
        states.append(fit.build_method(step, Runtime(), None, None).state_dict())
    first, same, different = states
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert any(not torch.equal(value, different[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("method", "groups", "supervision", "words"),
    [
        (mib.Config(), ((1, 2),), "pixel", "step 0 has no previous model"),
        (wilson.Config(), ((1, 2), (3,)), "image", "single class"),
        (mib.Config(), ((1, 2), (3, 4)), "image", "learns from pixel labels"),
        (wilson.Config(), ((1, 2), (3, 4)), "pixel", "learns from image labels"),
    ],
)
def test_documents_that_cannot_be_trained_are_refused(method, groups, supervision, words) -> None:
    with pytest.raises(ValueError, match=words):
        StepConfig(
            task=Task(data="d", groups=groups, selection="s", images=8, supervision=supervision),
            method=method,
            model=MODEL,
            optimization=Optimization(),
            augmentation=Augmentation(),
        )


def test_a_stored_document_is_read_as_its_own_method() -> None:
    document = build_step(wilson.Config(alpha=0.7))
    stored = document.model_dump_json()
    read = StepConfig.model_validate_json(stored)
    assert read == document
    assert isinstance(read.method, wilson.Config)
    with pytest.raises(ValueError, match="there is no method 'wilsom'"):
        StepConfig.model_validate_json(stored.replace('"wilson"', '"wilsom"'))
