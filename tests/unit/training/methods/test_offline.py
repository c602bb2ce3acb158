"""Check which network of the offline route trains when, and its hard labels on small cases."""

from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import SGD

from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, Task
from training.losses import divide
from training.methods import base, offline
from training.models.segmenter import Segmenter, normalise, upsample
from training.pamr import pamr
from training.step_config import StepConfig

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
PER_EPOCH = 4  # iterations
EPOCHS = 2.5
CLASSIFIER_EPOCHS = 1.2  # 5 of 10 iterations
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
    generator = torch.Generator().manual_seed(0)
    shape = (len(known), 3, 32, 32)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return base.Batch(pixels, normalise(pixels, torch.float64), None, torch.tensor(known).double())


def progress(iteration: int) -> base.Progress:
    return base.Progress(iteration, round(EPOCHS * PER_EPOCH), PER_EPOCH)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal_entries(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    """Return the names of the entries that are equal in both."""
    return {name for name, value in first.items() if torch.equal(value, second[name])}


def train(method: offline.Method, iterations: range) -> None:
    """Train as the loop does: SGD with momentum, strong decay and the groups' learning rates."""
    groups = [group | {"lr": group["initial_lr"]} for group in method.parameter_groups()]
    optimizer = SGD(groups, lr=0, momentum=0.9, weight_decay=0.01, nesterov=True)
    for iteration in iterations:
        for group in optimizer.param_groups:
            factor = method.learning_rate_factor(progress(iteration), group["name"])
            group["lr"] = group["initial_lr"] * factor
        optimizer.zero_grad()
        torch.stack(list(method(batch(), progress(iteration)).values())).sum().backward()
        # DDP expects a gradient of each parameter.
        assert all(parameter.grad is not None for parameter in method.parameters())
        optimizer.step()


@pytest.mark.parametrize("kind", ["cam", "single_stage"])
def test_first_the_classifier_learns_alone_then_the_segmentation_model(kind: str) -> None:
    """The other network's state, with its batch norm statistics, is the same bit for bit."""
    method = build(config(pseudo_labels=kind))
    model, classifier = state(method.model), state(method.classifier)
    train(method, range(5))
    learned = state(method.classifier)
    assert equal_entries(state(method.model), model) == model.keys()
    assert equal_entries(learned, classifier) == set()
    train(method, range(5, 10))
    assert equal_entries(state(method.classifier), learned) == learned.keys()
    assert equal_entries(state(method.model), model) == set()


def test_the_classifier_starts_from_the_previous_encoder() -> None:
    method = build(config())
    before = method.previous.encoder.state_dict()
    assert equal_entries(state(method.classifier.encoder), before) == before.keys()


def test_each_training_has_a_poly_schedule_of_its_own() -> None:
    method = build(config())
    ramp = [(1 - i / 5) ** 0.9 for i in range(5)]
    expected = {
        "encoder": [0] * 5 + ramp,
        "head": [0] * 5 + ramp,
        "classifier_encoder": ramp + [0] * 5,
        "classifier_scores": ramp + [0] * 5,
    }
    for name, factors in expected.items():
        found = [method.learning_rate_factor(progress(i), name) for i in range(10)]
        assert found == pytest.approx(factors)
    assert {group["name"] for group in method.parameter_groups()} == expected.keys()


def test_a_single_stage_classifier_learns_from_its_own_masks_after_a_fifth_of_its_epochs() -> None:
    method = build(config(pseudo_labels="single_stage", classifier_epochs=2.4))
    names = [set(method(batch(), progress(iteration))) for iteration in (0, 1, 2, 9)]
    assert ["self_supervision" in each for each in names] == [False, False, True, True]


def test_the_epochs_before_a_classifier_reads_its_own_masks_can_be_given() -> None:
    method = build(
        config(pseudo_labels="single_stage", classifier_epochs=2.4, labels_alone_epochs=1)
    )
    names = [set(method(batch(), progress(iteration))) for iteration in (2, 3, 4, 9)]
    assert ["self_supervision" in each for each in names] == [False, False, True, True]


@pytest.mark.parametrize("kind", ["cam", "single_stage"])
def test_labels_and_loss_can_be_at_the_image_s_resolution(kind: str) -> None:
    method = build(config(pseudo_labels=kind, resolution="image"))
    method.classifier.eval()
    sample = batch()
    labels = method.hard_labels(sample, sample.image_labels[:, -2:])
    assert labels.shape == (4, 32, 32)
    before = upsample(method.previous_outputs(sample.images).logits, (32, 32)).sigmoid()
    now = upsample(method.outputs(sample.images).logits, (32, 32))
    hard = torch.stack([labels == 4, labels == 5], 1).double()
    target = torch.cat([before, hard], 1)
    target[:, 0] = torch.where(labels == 0, before[:, 0], 0)
    pixels = nn.functional.binary_cross_entropy_with_logits(now, target, reduction="none").sum(1)
    torch.testing.assert_close(method(sample, progress(9))["segmentation"], pixels.mean())


def test_pamr_has_the_distances_of_the_document() -> None:
    near, far = (
        build(config(pseudo_labels="single_stage", affinity_dilations=dilations))
        for dilations in ((1, 2), (1, 2, 4))
    )
    confidence = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(
        near.refine(batch(), confidence), pamr(batch().pixels, confidence, 10, (1, 2))
    )
    assert not torch.equal(near.refine(batch(), confidence), far.refine(batch(), confidence))


def maps_are(method: offline.Method, maps: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method.classifier, "forward", lambda images: maps)


def test_cam_labels_are_the_highest_share_of_a_class_own_maximum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six pixels, class 4 has at most 10 and class 5 at most 2; below a fifth is background."""
    method = build(config(background_threshold=0.2))
    four, five = [10, 3, 1.9, -5, 0, 6], [-1, 0.5, 0.5, 0.3, 2, 1]
    maps_are(method, torch.tensor([[[1] * 6, four, five]] * 2).double()[:, :, None], monkeypatch)
    labels = method.hard_labels(batch(), torch.tensor([[1, 1], [0, 1]]).double())
    both, only_five = labels[:, 0].tolist()
    # Pixel 1 is 0.3 of 10 against 0.25 of 2, pixel 2 is 0.19 against 0.25, pixel 3 is 0.15 of 2.
    assert both == [4, 4, 5, 0, 5, 4]
    assert only_five == [0, 5, 5, 0, 5, 5], "a class that the image lacks wins nowhere"


def test_a_class_that_is_nowhere_active_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(config())
    maps = torch.tensor([[[1.0, 1.0]], [[-3.0, -2.0]], [[0.0, 0.0]]]).double()
    maps_are(method, maps[None], monkeypatch)
    assert method.hard_labels(batch(), torch.ones(1, 2)).tolist() == [[[0, 0]]]


def test_single_stage_labels_compete_with_the_background_of_score_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On four flat regions of four colours refinement changes nothing: the highest score wins."""
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
    """Hard labels are background, class 5, and, if labels name it, the previous class 2."""
    method = build(config(), labels)
    hard = torch.tensor([0, label, 5]).repeat(4, 8, 3)[:, :, :8]
    monkeypatch.setattr(method, "hard_labels", lambda *_: hard)
    before = method.previous_outputs(batch().images).logits.sigmoid()
    now = method.outputs(batch().images).logits
    target = torch.cat([before, torch.zeros_like(before[:, :1]), (hard == 5)[:, None].double()], 1)
    target[:, 0] = torch.where(hard == 0, before[:, 0], 0)
    pixels = nn.functional.binary_cross_entropy_with_logits(now, target, reduction="none").sum(1)
    torch.testing.assert_close(method(batch(), progress(9))["segmentation"], pixels.mean())


@pytest.mark.parametrize("labels", ["new", "seen"])
def test_hard_labels_are_channels_of_the_model(
    labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build(config(), labels)
    classes = (4, 5) if labels == "new" else (1, 2, 3, 4, 5)
    peaks = torch.cat([torch.ones(1, len(classes)), torch.eye(len(classes))]).double()
    maps_are(method, peaks[None, :, None], monkeypatch)
    found = method.hard_labels(batch(), torch.ones(1, len(classes)))
    assert found.flatten().tolist() == list(classes)


def test_images_kept_from_earlier_steps_are_background_of_the_new_classes() -> None:
    method = build(config())
    kept = batch([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0]])
    hard = method.hard_labels(kept, kept.image_labels[:, -2:])
    assert hard.sum() == 0
    for iteration in (0, 9):
        losses = method(kept, progress(iteration)).values()
        assert all(torch.isfinite(loss) for loss in losses)


def test_a_step_that_leaves_nothing_for_the_segmentation_model_is_refused() -> None:
    message = r"'offline' trains something else for 10 of 10 epochs; raise optimization.epochs"
    with pytest.raises(ValidationError, match=message):
        document(offline.Config(classifier_epochs=10), epochs=10)


def first_step(config: offline.Config) -> offline.Method:
    """Return the method of a step 0 with five classes."""
    task = Task(data="d", groups=((1, 2, 3, 4, 5),), selection="s", images=16, supervision="image")
    step = document(config).model_copy(update={"task": task})
    torch.manual_seed(1)
    return offline.Method(step, None, divide).double().train()


@pytest.mark.parametrize("pseudo_labels", ["cam", "single_stage"])
def test_step_0_learns_the_hard_labels_alone_with_background_among_them(pseudo_labels: str) -> None:
    method = first_step(config(pseudo_labels=pseudo_labels))
    method.prepare(list)
    method.classifier.scores.weight.data *= 40
    for name, value in method.model.encoder.state_dict().items():
        assert torch.equal(method.classifier.encoder.state_dict()[name], value)
    sample = batch([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 1]])
    late = progress(8)
    found = method(sample, late)["segmentation"]
    labels = method.hard_labels(sample, sample.image_labels)
    assert set(labels.unique().tolist()) > {0}
    logits = method.outputs(sample.images).logits
    wanted = nn.functional.one_hot(labels, 6).permute(0, 3, 1, 2).double()
    direct = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    torch.testing.assert_close(found, direct.sum(1).mean())
