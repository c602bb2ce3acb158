"""Each method on a small random batch: what it minimises, what it may read, and where its gradients go."""

from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor

from training.checkpoint import freeze
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, StepConfig, Task
from training.fit import build_method
from training.methods import (
    base,
    ewc,
    fine_tuning,
    icarl,
    ilt,
    joint,
    lwf,
    lwf_mc,
    mib,
    pi,
    rw,
    wilson,
)
from training.models.segmenter import Segmenter, normalise, upsample
from training.pseudo_labels import pseudo_supervision
from training.runtime import Runtime
from training.scenario import label_map

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
START, LATER = base.Progress(0, 100, 10), base.Progress(60, 100, 10)


def step(method: MethodConfig, groups=((1, 2, 3), (4, 5))) -> StepConfig:
    task = Task(data="d", groups=groups, selection="s", images=8, supervision=method.supervision)
    optimization = Optimization(epochs=10, batch=4, precision="float64")
    return StepConfig(
        task=task,
        method=method,
        model=MODEL,
        optimization=optimization,
        augmentation=Augmentation(crop=32),
    )


def batch(document: StepConfig) -> base.Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 6, (4, 32, 32), generator=generator)
    targets = torch.from_numpy(label_map(document.task))[masks].long()
    known = torch.tensor(
        [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]
    ).double()
    weak = document.task.supervision == "image"
    return base.Batch(pixels, normalise(pixels, torch.float64), None if weak else targets, known)


def build(document: StepConfig) -> base.Method:
    torch.manual_seed(1)
    previous = (
        freeze(Segmenter(MODEL, document.task.channels[:-1]).double())
        if len(document.task.groups) > 1
        else None
    )
    size = sum(parameter.numel() for parameter in previous.parameters()) if previous else 0
    recorded = {
        f"importance.{name}": torch.rand(size).double()
        for name in ("fisher", "path_integral", "walk")
    }
    module = import_module(f"training.methods.{document.method.name.replace('-', '_')}")
    return (
        module.Method(document, previous, Runtime().mean, recorded if previous else None)
        .double()
        .train()
    )


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
    document = step(config)
    method = build(document)
    for progress in (START, LATER):
        method.zero_grad()
        losses = method(batch(document), progress)
        assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(parameter.grad is not None for parameter in method.parameters())
    assert not method.previous.training
    assert all(not parameter.requires_grad for parameter in method.previous.parameters())
    assert not any(name.startswith("unregistered") for name in method.state_dict())


@pytest.mark.parametrize("config", INCREMENTAL, ids=lambda config: config.name)
def test_a_step_starts_from_the_previous_model(config: MethodConfig) -> None:
    document = step(config)
    method = build(document).eval()
    method.previous.eval()
    images = batch(document).images
    now, before = method.model(images), method.previous(images)
    torch.testing.assert_close(now.features, before.features)
    torch.testing.assert_close(now.logits[:, 1:4], before.logits[:, 1:4])


def test_parameter_groups_hold_every_parameter_once() -> None:
    for config in INCREMENTAL:
        method = build(step(config))
        grouped = [
            id(parameter) for group in method.parameter_groups() for parameter in group["params"]
        ]
        assert sorted(grouped) == sorted(id(parameter) for parameter in method.parameters())


def test_mib_splits_the_background_among_the_new_classes() -> None:
    method = build(step(mib.Config())).eval()
    images = batch(step(mib.Config())).images
    now, before = method.model(images).logits, method.previous(images).logits
    split = torch.cat([now[:, :1], now[:, 4:]], 1)
    torch.testing.assert_close(split.logsumexp(1), before[:, 0])
    torch.testing.assert_close(split[:, 0], split[:, 2])


def test_mib_parts_can_be_switched_off() -> None:
    plain = {
        "unbiased_cross_entropy": False,
        "unbiased_distillation": False,
        "background_initialisation": False,
    }
    document = step(mib.Config(**plain, distillation_weight=100))
    losses = build(document)(batch(document), START)
    expected = build(step(lwf.Config()))(batch(document), START)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)


def test_ilt_is_lwf_that_keeps_the_features_too() -> None:
    document = step(ilt.Config(encoder_distillation=7))
    method, plain = build(document), build(step(lwf.Config()))
    with torch.no_grad():  # away from the previous model, or nothing is to be kept
        for model in (method.model, plain.model):
            next(model.encoder.parameters()).mul_(1.5)
    losses, expected = method(batch(document), START), plain(batch(document), START)
    assert {name: losses[name] for name in expected} == expected
    now, before = (
        model(batch(document).images).features for model in (method.model, method.previous)
    )
    torch.testing.assert_close(losses["encoder"], 7 * (now - before).square().mean())
    assert losses["encoder"] > 0


def logits_of(method: base.Method, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Full-resolution logits of the method's model and of the previous one."""
    with torch.no_grad():
        now, before = (
            upsample(model(images).logits, images.shape[-2:])
            for model in (method.model, method.previous)
        )
    return now.numpy(), before.numpy()


def bce(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return wanted * np.logaddexp(0, -logits) + (1 - wanted) * np.logaddexp(0, logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def one_hot(targets: Tensor, channels: int) -> np.ndarray:
    return np.stack([targets.numpy() == channel for channel in range(channels)], 1).astype(float)


def test_lwf_mc_learns_every_channel_and_keeps_the_previous_ones() -> None:
    document = step(lwf_mc.Config(distillation_weight=3))
    method, given = build(document), batch(document)
    losses = method(given, START)
    now, before = logits_of(method, given.images)
    expected = bce(now, one_hot(given.masks, 6)).sum(1).mean()
    kept = 3 * bce(now[:, :4], sigmoid(before)).sum(1).mean()
    assert losses["segmentation"].item() == pytest.approx(expected)
    assert losses["distillation"].item() == pytest.approx(kept)


@pytest.mark.parametrize("background", ["smaller", "previous", "mask"])
def test_icarl_learns_new_classes_from_masks_and_old_ones_from_the_previous_model(
    background,
) -> None:
    document = step(icarl.Config(background=background))
    method, given = build(document), batch(document)
    given.masks[:, :5] = 255
    now, before = logits_of(method, given.images)
    wanted, previous = one_hot(given.masks, 6), sigmoid(before)
    choice = {
        "smaller": np.minimum(wanted[:, 0], previous[:, 0]),
        "previous": previous[:, 0],
        "mask": wanted[:, 0],
    }[background]
    wanted[:, 1:4] = previous[:, 1:]
    wanted[:, 0] = np.where(
        given.masks.numpy() == 255, previous[:, 0], choice
    )  # unlabelled: the previous model decides
    assert method(given, START)["segmentation"].item() == pytest.approx(
        bce(now, wanted).sum(1).mean()
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_joint_training_learns_as_step_0_does(loss) -> None:
    groups = ((1, 2, 3, 4, 5),)
    one, other = step(joint.Config(loss=loss), groups), step(fine_tuning.Config(loss=loss), groups)
    assert build(one)(batch(one), START) == build(other)(batch(other), START)


def test_wilson_learns_the_localizer_alone_during_warmup() -> None:
    document = step(wilson.Config(warmup_epochs=5))
    method = build(document)
    losses = method(batch(document), START)
    assert losses["segmentation"] == 0
    assert "self_supervision" not in losses
    torch.stack(list(losses.values())).sum().backward()
    head, encoder = next(method.model.head.parameters()), next(method.model.encoder.parameters())
    assert head.grad is not None
    assert encoder.grad is not None
    assert head.grad.abs().sum() == 0
    assert encoder.grad.abs().sum() > 0
    assert (
        method.learning_rate_factor(START, "head")
        == method.learning_rate_factor(base.Progress(49, 100, 10), "head")
        == 1
    )
    assert method.learning_rate_factor(base.Progress(50, 100, 10), "head") == pytest.approx(
        0.5**0.9
    )


def test_wilson_alpha_changes_only_the_segmentation_loss() -> None:
    soft, hard = (step(wilson.Config(alpha=alpha)) for alpha in (0, 1))
    losses = [build(document)(batch(document), LATER) for document in (soft, hard)]
    changed = [name for name in losses[0] if losses[0][name] != losses[1][name]]
    assert changed == ["segmentation"]


def test_background_is_the_smaller_of_both_or_their_mixture() -> None:
    scores, previous = torch.randn(2, 6, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    labels = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]])
    smaller, _ = pseudo_supervision(scores, previous, labels, 0.5)
    old, _ = pseudo_supervision(scores, previous, labels, 0.5, background_mix=0)
    localizer, _ = pseudo_supervision(scores, previous, labels, 0.5, background_mix=1)
    half, _ = pseudo_supervision(scores, previous, labels, 0.5, background_mix=0.5)
    torch.testing.assert_close(old[:, 0], previous[:, 0].sigmoid())
    torch.testing.assert_close(smaller[:, 0], torch.minimum(old[:, 0], localizer[:, 0]))
    torch.testing.assert_close(half[:, 0], (old[:, 0] + localizer[:, 0]) / 2)
    torch.testing.assert_close(half[:, 1:], smaller[:, 1:])


def test_wilson_supervised_for_all_classes_scores_previous_ones_too() -> None:
    document = step(wilson.Config())
    seen = document.model_copy(update={"task": document.task.model_copy(update={"labels": "seen"})})
    one, other = build(document)(batch(document), LATER), build(seen)(batch(document), LATER)
    assert one["classification"] != other["classification"]
    torch.testing.assert_close(one["prior"], other["prior"])


def test_random_start_follows_from_the_seed() -> None:
    document = step(fine_tuning.Config(), groups=((1, 2, 3),))
    one, same = (build_method(document, Runtime(), None, None).state_dict() for _ in range(2))
    other = build_method(
        document.model_copy(update={"seed": 7}), Runtime(), None, None
    ).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


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


def test_a_stored_document_comes_back_as_its_own_method() -> None:
    document = step(wilson.Config(alpha=0.7))
    read = StepConfig.model_validate_json(document.model_dump_json())
    assert read == document
    assert isinstance(read.method, wilson.Config)
    with pytest.raises(ValueError, match="there is no method 'wilsom'"):
        StepConfig.model_validate_json(document.model_dump_json().replace('"wilson"', '"wilsom"'))
