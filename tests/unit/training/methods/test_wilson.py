"""Check that each of WILSON's ablations changes its own losses, and how kept images are used."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.methods import build_batch, build_method, build_step
from training import image_label_losses as losses
from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, Task
from training.losses import distillation, localization_prior_loss
from training.methods import base, wilson
from training.models.segmenter import Segmenter, normalise
from training.pamr import pamr
from training.pseudo_labels import keep_labelled, pseudo_masks, pseudo_supervision
from training.step_config import StepConfig

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
WARMUP, LATER = base.Progress(0, 100, 10), base.Progress(60, 100, 10)
PREVIOUS = 4  # channels of the previous model: background and the classes 1, 2, 3
LABELS = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0]]).double()


def build(new: tuple[int, ...] = (4, 5), memory: int = 0, **fields: Any) -> wilson.Method:
    kept = {"memory": "m", "memory_images": memory} if memory else {}
    task = Task(
        data="d", groups=((1, 2, 3), new), selection="s", images=8, supervision="image", **kept
    )
    step = StepConfig(
        task=task,
        method=wilson.Config(**fields),
        model=MODEL,
        optimization=Optimization(epochs=10, batch=4, precision="float64"),
        augmentation=Augmentation(crop=32),
    )
    torch.manual_seed(1)
    previous = freeze(Segmenter(MODEL, (PREVIOUS,)).double())
    method = wilson.Method(step, previous).double().train()
    # Scores must be high enough for masks of its own, also in evaluation mode.
    method.localizer.classifier.weight.data *= 40
    with torch.no_grad():
        features = method.model.encoder(batch().images)
        for _ in range(30):
            method.localizer(features)
    return method


def batch(labels: Tensor = LABELS) -> base.Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(labels), 3, 32, 32), generator=generator, dtype=torch.uint8)
    return base.Batch(pixels, normalise(pixels, torch.float64), None, labels)


def terms(method: wilson.Method, progress: base.Progress = LATER) -> dict[str, Tensor]:
    """Return the losses of the batch; the method's running statistics are left as they are."""
    return deepcopy(method)(batch(), progress)


def both_scores(method: wilson.Method) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores, the scores for targets, and the previous logits that `terms` computes."""
    method = deepcopy(method)
    features = method.outputs(batch().images).features
    previous = method.previous_outputs(batch().images).logits
    return *method.scores_with_targets(features, previous), previous


def changed(**fields: Any) -> set[str]:
    """Return the names of the losses that differ from the paper's settings or are gone."""
    paper, other = terms(build()), terms(build(**fields))
    assert set(other) <= set(paper)
    return {
        name for name in paper if name not in other or not torch.equal(paper[name], other[name])
    }


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"prior": "none"}, {"prior"}),
        ({"prior": "softmax_ce"}, {"prior"}),
        ({"prior": "fixed"}, {"prior", "classification", "self_supervision", "segmentation"}),
        ({"prior": "constant"}, {"prior", "classification", "self_supervision", "segmentation"}),
        ({"pooling": "ngwp"}, {"classification"}),
        ({"pooling": "attention"}, {"classification"}),
        ({"pooling": "gap"}, {"classification"}),
        ({"affinity_iterations": 1}, {"self_supervision"}),
        ({"affinity_dilations": (1,)}, {"self_supervision"}),
        ({"affinity": False}, {"self_supervision"}),
        ({"alpha": 0.7}, {"segmentation"}),
        ({"background_mix": 0.5}, {"segmentation"}),
        ({"yield_to_previous": True}, {"segmentation"}),
        ({"new_class_odds": 2}, {"segmentation"}),
        ({"encoder_distillation": 2}, {"encoder"}),
        ({"prior_weight": 2}, {"prior"}),
        ({"self_supervision": 2}, {"self_supervision"}),
        ({"warmup_epochs": 1}, set()),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_an_ablation_changes_its_losses_and_no_other(
    fields: dict[str, Any], names: set[str]
) -> None:
    assert changed(**fields) == names


def test_a_learned_prior_is_the_loss_it_names() -> None:
    scores, _, previous = both_scores(build())
    named = {"bce": localization_prior_loss, "softmax_ce": distillation}
    for prior, loss in named.items():
        found = terms(build(prior=prior, prior_weight=3))["prior"]
        torch.testing.assert_close(found, 3 * loss(scores, previous))


@pytest.mark.parametrize("prior", ["fixed", "constant"])
def test_a_prior_that_is_not_learned_takes_the_previous_channels_place(prior: str) -> None:
    method = build(prior=prior)
    learned, learned_targets, _ = both_scores(build())
    scores, targets, previous = both_scores(method)
    given = previous if prior == "fixed" else torch.ones_like(previous)
    for now, then in ((scores, learned), (targets, learned_targets)):
        assert torch.equal(now[:, :PREVIOUS], given)
        assert torch.equal(now[:, PREVIOUS:], then[:, PREVIOUS:])
    found = terms(method)
    pooled = losses.ngwp_focal_pooling(scores)
    classification = losses.classification_loss(pooled, LABELS, PREVIOUS)
    torch.testing.assert_close(found["classification"], classification)
    target, weight = pseudo_supervision(targets, previous, LABELS, 0.5)
    logits = method.outputs(batch().images).logits
    segmentation = losses.segmentation_loss(logits, target, weight)
    torch.testing.assert_close(found["segmentation"], segmentation)


@pytest.mark.parametrize("prior", ["fixed", "constant"])
def test_with_a_prior_that_is_not_learned_only_new_channels_have_a_gradient(prior: str) -> None:
    method = build(prior=prior)
    torch.stack(list(method(batch(), LATER).values())).sum().backward()
    gradient = method.localizer.classifier.weight.grad
    assert gradient is not None
    assert gradient[:PREVIOUS].abs().sum() == 0
    assert gradient[PREVIOUS:].abs().sum() > 0


def test_pooling_is_the_formula_it_names() -> None:
    scores, _, _ = both_scores(build())
    pooled = {
        "ngwp_focal": losses.ngwp_focal_pooling(scores),
        "ngwp": losses.ngwp_focal_pooling(scores, focal=False),
        "attention": losses.attention_pooling(scores),
        "gap": scores.mean((2, 3)),
    }
    for pooling, expected in pooled.items():
        torch.testing.assert_close(build(pooling=pooling).image_scores(scores), expected)


def test_affinity_refines_by_its_iterations_and_dilations() -> None:
    scores, targets, _ = both_scores(build())
    confidence = keep_labelled(targets.softmax(1), LABELS)
    for iterations, dilations in ((2, (1, 3)), (1, (2,))):
        masks = pseudo_masks(pamr(batch().pixels, confidence, iterations, dilations))
        method = build(affinity_iterations=iterations, affinity_dilations=dilations)
        expected = losses.self_supervision_loss(scores, masks, LABELS)
        torch.testing.assert_close(terms(method)["self_supervision"], expected)


def test_the_semantic_prior_is_added_with_its_weight() -> None:
    pairs = ((4, 1, 3.0), (2, 5, 0.5))
    method = build(semantic_prior=2, similarity=pairs)
    scores, _, previous = both_scores(method)
    table = torch.tensor([[1, 3, 1, 1], [1, 1, 0.5, 1]]).double()
    for progress in (WARMUP, LATER):
        with_it, without = terms(method, progress), terms(build(), progress)
        expected = 2 * losses.semantic_prior_loss(scores, previous, LABELS, table)
        torch.testing.assert_close(with_it.pop("semantic_prior"), expected)
        assert with_it.keys() == without.keys()
        assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_a_semantic_prior_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give method\.similarity"):
        wilson.Config(semantic_prior=1)


# The second and fourth image are kept from an earlier step. Their labels name no new class.
WITH_MEMORY = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]]).double()
KEPT = [1, 3]


def test_kept_images_are_the_negatives_of_a_single_new_class() -> None:
    method = build(new=(4,), memory=4)
    found = method(batch(WITH_MEMORY), WARMUP)["classification"]
    features = method.outputs(batch(WITH_MEMORY).images).features
    previous = method.previous_outputs(batch().images).logits
    score = losses.ngwp_focal_pooling(method.scores(features, previous))[:, PREVIOUS]
    positive, negative = score[[0, 2]].sigmoid().log(), (1 - score[KEPT].sigmoid()).log()
    torch.testing.assert_close(found, -(positive.sum() + negative.sum()) / 4)


def test_targets_of_kept_images_are_the_previous_model_s_and_no_new_class() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 5, 8, 8, generator=generator).double()
    previous = torch.randn(4, PREVIOUS, 8, 8, generator=generator).double()
    # The localizer predicts the new class everywhere.
    scores[:, PREVIOUS] += 5
    target, weight = pseudo_supervision(scores, previous, WITH_MEMORY, alpha=0.5)
    assert weight.tolist() == [1, 1, 1, 1]
    assert (target[KEPT, PREVIOUS] == 0).all()
    assert (target[[0, 2], PREVIOUS] > 0.5).all()
    torch.testing.assert_close(target[:, 1:PREVIOUS], previous[:, 1:].sigmoid())


def test_kept_images_give_the_localizer_masks_of_the_classes_they_are_known_to_show() -> None:
    """The masks hold background and the image's own classes, and not the predicted new class."""
    scores = torch.zeros(4, 5, 8, 8).double()
    scores[:, 0, :4], scores[:, PREVIOUS, 6:] = 9, 9
    # Each kept image has one of these two classes.
    scores[:, 1, 4:6, :4] = scores[:, 2, 4:6, :4] = 9
    scores[:, 3, 4:6, 4:] = 9
    masks = pseudo_masks(keep_labelled(scores.softmax(1), WITH_MEMORY))
    assert masks[1].sum((1, 2)).tolist() == [32, 8, 0, 0, 0]
    assert masks[3].sum((1, 2)).tolist() == [32, 0, 8, 8, 0]
    apart = []
    for i in range(4):
        apart.append(losses.self_supervision_loss(scores[[i]], masks[[i]], WITH_MEMORY[[i]]))
    assert all(loss > 0 for loss in apart)
    together = losses.self_supervision_loss(scores, masks, WITH_MEMORY)
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_the_segmentation_model_does_not_learn_during_warmup() -> None:
    document = build_step(wilson.Config(warmup_epochs=5))
    method = build_method(document)
    losses = method(build_batch(document), WARMUP)
    assert losses["segmentation"] == 0
    assert "self_supervision" not in losses
    torch.stack(list(losses.values())).sum().backward()
    head, encoder = next(method.model.head.parameters()), next(method.model.encoder.parameters())
    assert head.grad is not None
    assert encoder.grad is not None
    assert head.grad.abs().sum() == 0
    assert encoder.grad.abs().sum() > 0


def test_the_head_rests_during_warmup() -> None:
    """Its norms' statistics move and its weights have gradients of 0, as if logits counted 0."""
    found, expected = build(), build()
    features = expected.model.encoder(batch().images)
    losses = found(batch(), WARMUP)
    rest = [losses[name] for name in losses if name != "segmentation"]
    torch.stack(rest).sum().backward()
    head = [*found.model.head.parameters(), *found.model.classifiers.parameters()]
    assert all(parameter.grad is None for parameter in head)
    losses["segmentation"].backward()
    for parameter in head:
        assert parameter.grad is not None
        assert parameter.grad.count_nonzero() == 0
    expected.model.head(features)
    for name, value in expected.model.head.named_buffers():
        assert torch.equal(found.model.head.get_buffer(name), value), name


def test_the_learning_rate_is_constant_during_warmup_and_then_jumps() -> None:
    method = build_method(build_step(wilson.Config(warmup_epochs=5)))
    factors = [
        method.learning_rate_factor(base.Progress(iteration, 100, 10), "head")
        for iteration in (0, 49, 50)
    ]
    assert factors == [1, 1, pytest.approx(0.5**0.9)]


def test_alpha_changes_only_the_segmentation_loss() -> None:
    documents = [build_step(wilson.Config(alpha=alpha)) for alpha in (0, 1)]
    soft, hard = (build_method(step)(build_batch(step), LATER) for step in documents)
    assert [name for name in soft if soft[name] != hard[name]] == ["segmentation"]


def test_with_labels_of_all_classes_previous_ones_are_classified_too() -> None:
    document = build_step(wilson.Config())
    task = document.task.model_copy(update={"labels": "seen"})
    seen = document.model_copy(update={"task": task})
    one = build_method(document)(build_batch(document), LATER)
    other = build_method(seen)(build_batch(document), LATER)
    assert one["classification"] != other["classification"]
    torch.testing.assert_close(one["prior"], other["prior"])


def first_step(**fields: Any) -> wilson.Method:
    """Return the method of a step 0 with five classes."""
    task = Task(data="d", groups=((1, 2, 3, 4, 5),), selection="s", images=8, supervision="image")
    alone = {"prior": "constant", "encoder_distillation": 0}
    step = StepConfig(
        task=task,
        method=wilson.Config.model_validate(alone | fields),
        model=MODEL,
        optimization=Optimization(epochs=10, batch=4, precision="float64"),
        augmentation=Augmentation(crop=32),
    )
    torch.manual_seed(1)
    method = wilson.Method(step).double().train()
    method.localizer.classifier.weight.data *= 40
    return method


@pytest.mark.parametrize("prior", ["constant", "none"])
def test_step_0_learns_from_its_localizer_alone(prior: str) -> None:
    method = first_step(prior=prior, alpha=0.5)
    sample = batch()
    other = deepcopy(method)
    found = method(sample, LATER)
    assert set(found) == {"classification", "self_supervision", "segmentation"}
    features = other.model.encoder(sample.images)
    scores, targets = other.localizer.with_targets(features)
    if prior == "constant":
        ones = torch.ones_like(scores[:, :1])
        scores, targets = (torch.cat([ones, each[:, 1:]], 1) for each in (scores, targets))
    # Every class is supervised by image labels, and background by nothing.
    pooled = losses.ngwp_focal_pooling(scores)[:, 1:]
    direct = torch.nn.functional.binary_cross_entropy_with_logits(pooled, LABELS)
    torch.testing.assert_close(found["classification"], direct)
    # The target is the localizer's mixture in all channels, background's too.
    soft = targets.softmax(1)
    soft[:, 1:] *= LABELS[:, :, None, None]
    target = 0.5 * (soft == soft.amax(1, keepdim=True)).double() + 0.5 * soft
    logits = other.model.decode(features).logits
    pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    expected = pixels.sum(1).mean((1, 2)).sum() / (len(LABELS) + 1e-5)
    torch.testing.assert_close(found["segmentation"], expected)
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prior": "bce"}, "base.method.prior"),
        ({"encoder_distillation": 1}, "base.method.encoder_distillation"),
        ({"background_mix": 0.1}, "base.method.background_mix"),
        ({"yield_to_previous": True}, "base.method.yield_to_previous"),
        ({"new_class_odds": 2}, "base.method.new_class_odds"),
        ({"semantic_prior": 1, "similarity": ((1, 2, 2.0),)}, "base.method.semantic_prior"),
    ],
    ids=str,
)
def test_step_0_refuses_what_needs_a_previous_model(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"no previous model, which {named} would need"):
        first_step(**fields)
