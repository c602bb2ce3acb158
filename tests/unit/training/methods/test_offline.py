"""The offline route: who learns when, and what the hard labels are, on cases worked out by hand."""

from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import SGD

from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, StepConfig, Task
from training.losses import divide
from training.methods import base, offline
from training.models.segmenter import Segmenter, normalise

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
PER_EPOCH, EPOCHS, CLASSIFIER_EPOCHS = 4, 2.5, 1.2  # the classifier gets 5 of 10 iterations
Labels = Literal["new", "seen"]


def config(**fields: object) -> offline.Config:
    return offline.Config.model_validate({"classifier_epochs": CLASSIFIER_EPOCHS} | fields)


def document(config: offline.Config, labels: Labels = "new", epochs: float = EPOCHS) -> StepConfig:
    task = Task(
        data="d",
        groups=((1, 2, 3), (4, 5)),
        selection="s",
        images=16,
        supervision="image",
        labels=labels,
    )
    optimization = Optimization(
        epochs=epochs,
        batch=4,
        encoder_lr=0.05,
        head_lr=0.05,
        weight_decay=0.01,
        precision="float64",
    )
    return StepConfig(
        task=task,
        method=config,
        model=MODEL,
        optimization=optimization,
        augmentation=Augmentation(crop=32),
    )


def build(config: offline.Config, labels: Labels = "new") -> offline.Method:
    torch.manual_seed(1)
    step = document(config, labels)
    previous = freeze(Segmenter(MODEL, step.task.channels[:-1]).double())
    return offline.Method(step, previous, divide).double().train()


def batch(known: list[list[int]] | None = None) -> base.Batch:
    known = known or [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]
    pixels = torch.randint(
        0,
        256,
        (len(known), 3, 32, 32),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    return base.Batch(pixels, normalise(pixels, torch.float64), None, torch.tensor(known).double())


def progress(iteration: int) -> base.Progress:
    return base.Progress(iteration, round(EPOCHS * PER_EPOCH), PER_EPOCH)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def train(method: offline.Method, iterations: range) -> None:
    """As the loop does it: SGD with momentum and strong decay, a learning rate for each group and iteration."""
    groups = [group | {"lr": group["initial_lr"]} for group in method.parameter_groups()]
    optimizer = SGD(groups, lr=0, momentum=0.9, weight_decay=0.01, nesterov=True)
    for iteration in iterations:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * method.learning_rate_factor(
                progress(iteration), group["name"]
            )
        optimizer.zero_grad()
        torch.stack(list(method(batch(), progress(iteration)).values())).sum().backward()
        assert all(parameter.grad is not None for parameter in method.parameters()), (
            "workers expect each gradient"
        )
        optimizer.step()


@pytest.mark.parametrize("kind", ["cam", "single_stage"])
def test_first_the_classifier_learns_alone_then_the_segmentation_model(kind: str) -> None:
    """Whoever waits neither moves nor decays nor updates the statistics of its norms: its state is the same, bit for bit."""
    method = build(config(pseudo_labels=kind))
    start = state(method.model), state(method.classifier)
    train(method, range(5))
    learned = state(method.classifier)
    assert all(
        torch.equal(value, start[0][name]) for name, value in method.model.state_dict().items()
    )
    assert not any(torch.equal(value, start[1][name]) for name, value in learned.items())
    train(method, range(5, 10))
    assert all(
        torch.equal(value, learned[name]) for name, value in method.classifier.state_dict().items()
    )
    assert not any(
        torch.equal(value, start[0][name]) for name, value in method.model.state_dict().items()
    )


def test_the_classifier_starts_from_the_previous_encoder() -> None:
    method = build(config())
    before = method.previous.encoder.state_dict()
    assert all(
        torch.equal(value, before[name])
        for name, value in method.classifier.encoder.state_dict().items()
    )


def test_each_training_has_a_poly_schedule_of_its_own() -> None:
    method = build(config())
    ramp = [(1 - i / 5) ** 0.9 for i in range(5)]
    factors = {
        name: [method.learning_rate_factor(progress(i), name) for i in range(10)]
        for name in ("head", "encoder")
    }
    assert factors["head"] == factors["encoder"] == pytest.approx([0] * 5 + ramp)
    for name in ("classifier_encoder", "classifier_scores"):
        assert [method.learning_rate_factor(progress(i), name) for i in range(10)] == pytest.approx(
            ramp + [0] * 5
        )
    assert {group["name"] for group in method.parameter_groups()} == {
        "encoder",
        "head",
        "classifier_encoder",
        "classifier_scores",
    }


def test_a_single_stage_classifier_learns_from_its_own_masks_after_a_fifth_of_its_epochs() -> None:
    method = build(config(pseudo_labels="single_stage", classifier_epochs=2.4))
    names = [set(method(batch(), progress(iteration))) for iteration in (0, 1, 2, 9)]
    assert ["self_supervision" in each for each in names] == [False, False, True, True]


def maps_are(method: offline.Method, maps: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method.classifier, "forward", lambda images: maps)


def test_cam_labels_are_the_highest_share_of_a_class_own_maximum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One row of six pixels. Class 4 peaks at 10, class 5 at 2; below a fifth of its peak a class is background."""
    method = build(config(background_threshold=0.2))
    four, five = [10, 3, 1.9, -5, 0, 6], [-1, 0.5, 0.5, 0.3, 2, 1]
    maps_are(method, torch.tensor([[[1] * 6, four, five]] * 2).double()[:, :, None], monkeypatch)
    both, only_five = method.hard_labels(batch(), torch.tensor([[1, 1], [0, 1]]).double())[
        :, 0
    ].tolist()
    assert both == [
        4,
        4,
        5,
        0,
        5,
        4,
    ]  # pixel 1: 0.3 of 10 against 0.25 of 2; pixel 2: 0.19 against 0.25; pixel 3: 0.15 of 2
    assert only_five == [0, 5, 5, 0, 5, 5], "a class that the image lacks wins nowhere"


def test_a_class_that_is_nowhere_active_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(config())
    maps_are(
        method,
        torch.tensor([[[1.0, 1.0]], [[-3.0, -2.0]], [[0.0, 0.0]]]).double()[None],
        monkeypatch,
    )
    assert method.hard_labels(batch(), torch.ones(1, 2)).tolist() == [[[0, 0]]]


def test_single_stage_labels_compete_with_the_background_of_score_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four flat regions on an image of the same four colours: refinement changes nothing, and the highest score wins."""
    method = build(config(pseudo_labels="single_stage"))
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    scores = torch.tensor([[1, 1, 1, 1], [0.9, 1.1, 0, 3], [0, 0, 2, 5]]).double()
    maps_are(method, scores[:, quarters][None], monkeypatch)
    colours = torch.tensor([0, 80, 160, 240], dtype=torch.uint8)[quarters].expand(1, 3, 32, 32)
    sample = base.Batch(colours, normalise(colours, torch.float64), None, torch.zeros(1, 5))
    found = method.hard_labels(sample, torch.tensor([[1, 0]]).double())[0]
    assert torch.equal(found, torch.tensor([0, 4, 0, 4])[quarters])


@pytest.mark.parametrize(("labels", "label"), [("new", 0), ("seen", 2)])
def test_the_segmentation_model_learns_from_the_previous_one_and_the_hard_labels(
    labels: Labels, label: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Background, class 2 of the old ones (a label only if labels name it) and class 5, and what the target of each is."""
    method = build(config(), labels)
    hard = torch.tensor([0, label, 5]).repeat(4, 8, 3)[:, :, :8]
    monkeypatch.setattr(method, "hard_labels", lambda *_: hard)
    before, now = (
        method.previous_outputs(batch().images).logits.sigmoid(),
        method.outputs(batch().images).logits,
    )
    target = torch.cat([before, torch.zeros_like(before[:, :1]), (hard == 5)[:, None].double()], 1)
    target[:, 0] = torch.where(hard == 0, before[:, 0], 0)
    expected = (
        nn.functional.binary_cross_entropy_with_logits(now, target, reduction="none").sum(1).mean()
    )
    torch.testing.assert_close(method(batch(), progress(9))["segmentation"], expected)


@pytest.mark.parametrize("labels", ["new", "seen"])
def test_hard_labels_are_channels_of_the_model(
    labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build(config(), labels)
    classes = (4, 5) if labels == "new" else (1, 2, 3, 4, 5)
    peaks = torch.cat([torch.ones(1, len(classes)), torch.eye(len(classes))]).double()
    maps_are(method, peaks[None, :, None], monkeypatch)
    assert method.hard_labels(batch(), torch.ones(1, len(classes))).flatten().tolist() == list(
        classes
    )


def test_images_kept_of_earlier_steps_are_background_of_the_new_classes() -> None:
    method = build(config())
    kept = batch([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]])
    hard = method.hard_labels(kept, kept.image_labels[:, -2:])
    assert hard.sum() == 0
    assert all(torch.isfinite(loss) for i in (0, 9) for loss in method(kept, progress(i)).values())


def test_a_step_that_leaves_nothing_for_the_segmentation_model_is_refused() -> None:
    with pytest.raises(
        ValidationError,
        match=r"'offline' trains something else for 10 of 10 epochs; raise optimization.epochs",
    ):
        document(offline.Config(classifier_epochs=10), epochs=10)
