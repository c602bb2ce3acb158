"""Check the losses from image labels: golden numbers of the papers' code and hand-made cases."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.losses import check_workers, close, learnable, load, random_batch
from training import image_label_losses as losses
from training import pseudo_labels
from training.losses import Mean, encoder_distillation, localization_prior_loss

WILSON = ["wilson_default", "wilson_all_class_supervision", "wilson_single_image"]


def wilson_losses(
    z: dict[str, Tensor], localizer_logits: Tensor, logits: Tensor, alpha: float
) -> dict[str, Tensor]:
    """Return the losses of a weak step but the encoder's, by the golden files' names."""
    labels = z["in.image_labels"]
    previous_logits = z["in.previous_logits"]
    scores = z["in.localizer_logits_eval"]
    unsupervised = 1 if z["meta.all_class_supervision"] else int(z["meta.n_previous"])
    target, image_weight = pseudo_labels.pseudo_supervision(scores, previous_logits, labels, alpha)
    masks = z["out.pseudo_mask_onehot"].to(logits.dtype)
    pooled = losses.ngwp_focal_pooling(localizer_logits)
    return {
        "cls": losses.classification_loss(pooled, labels, unsupervised),
        "loc": localization_prior_loss(localizer_logits, previous_logits),
        "sss": losses.self_supervision_loss(localizer_logits, masks, labels),
        "seg": losses.segmentation_loss(logits, target, image_weight),
    }


@pytest.mark.parametrize("file", WILSON)
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_wilson_losses_agree_with_the_published_code(
    file: str, dtype: torch.dtype, relative: float
) -> None:
    z = load(file, dtype)
    pooled = losses.ngwp_focal_pooling(z["in.localizer_logits"])
    without_penalty = losses.ngwp_focal_pooling(z["in.localizer_logits"], focal=False)
    close(pooled, z["out.pooled_scores"], relative)
    close(without_penalty, z["out.pooled_scores_no_focal"], relative)
    for alpha in (0, 0.3, 0.5, 0.7, 1):
        terms = wilson_losses(z, z["in.localizer_logits"], z["in.logits"], alpha)
        close(terms["seg"], z[f"out.alpha{alpha}.loss_seg"], relative)
        total = torch.stack(list(terms.values())).sum() + z["out.loss_enc"]
        close(total, z[f"out.alpha{alpha}.total"], relative)
        for name in ("cls", "loc", "sss"):
            close(terms[name], z[f"out.loss_{name}"], relative)


@pytest.mark.parametrize(
    ("file", "alpha"),
    [("wilson_default", 0.5), ("wilson_default", 1), ("wilson_all_class_supervision", 0.5)],
)
def test_wilson_gradients_agree_with_the_published_code(file: str, alpha: float) -> None:
    z = load(file)
    localizer_logits, logits = learnable(z["in.localizer_logits"]), learnable(z["in.logits"])
    terms = wilson_losses(z, localizer_logits, logits, alpha)
    torch.stack(list(terms.values())).sum().backward()
    close(logits.grad, z[f"out.alpha{alpha}.grad_logits"])
    # Alpha changes the segmentation loss alone.
    close(localizer_logits.grad, z["out.alpha0.5.grad_localizer_logits"])


def test_warmup_agrees_with_the_published_code() -> None:
    z = load("wilson_default")
    localizer_logits, features = learnable(z["in.localizer_logits"]), learnable(z["in.features"])
    encoder = encoder_distillation(features, z["in.previous_features"])
    terms = wilson_losses(z, localizer_logits, z["in.logits"], alpha=0.5)
    loss = terms["cls"] + terms["loc"] + encoder
    loss.backward()
    close(encoder, z["out.loss_enc"])
    close(loss, z["out.warmup.total"])
    close(localizer_logits.grad, z["out.warmup.grad_localizer_logits"])
    close(features.grad, z["out.warmup.grad_features"])


def test_pooling_by_attention_weighs_pixels_by_their_softmax() -> None:
    # The softmax of channel 1 is 3/4 and 1/2.
    logits = torch.tensor([0, 0, math.log(3), 0], dtype=torch.float64).view(1, 2, 1, 2)
    scores = losses.attention_pooling(logits)
    assert scores[0].tolist() == pytest.approx([0, 0.76 * math.log(3) / (0.76 + 0.51)])


def test_the_semantic_prior_looks_for_a_class_where_one_like_it_is_seen() -> None:
    """One new class after background and one previous class, which the second pixel shows."""
    localizer = torch.zeros(2, 3, 1, 2, dtype=torch.float64)
    localizer[:, 2] = math.log(3)  # sigmoid 3/4
    previous = torch.tensor([5.0, 0, 0, 5], dtype=torch.float64).view(1, 2, 1, 2)
    previous = previous.expand(2, -1, -1, -1)
    similarity = torch.tensor([[1, 4]], dtype=torch.float64)
    # The second image does not have the new class and counts as 0.
    labels = torch.tensor([[0.0, 1], [1, 0]], dtype=torch.float64)
    found = losses.semantic_prior_loss(localizer, previous, labels, similarity)
    wanted = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-4))]
    pixels = [-(p * math.log(3 / 4) + (1 - p) * math.log(1 / 4)) for p in wanted]
    assert found.item() == pytest.approx(sum(pixels) / 4)


def test_classification_leaves_previous_classes_alone() -> None:
    scores = learnable(torch.zeros(2, 5))
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]])
    losses.classification_loss(scores, labels, previous_channels=3).backward()
    assert scores.grad is not None
    assert scores.grad[:, :3].count_nonzero() == 0
    assert scores.grad[:, 3:].count_nonzero() == 4


def test_self_supervision_waits_for_masks_of_all_labelled_classes() -> None:
    masks = torch.zeros(2, 3, 2, 2)
    masks[:, 0, 0, 0] = masks[:, 1, 1, 1] = 1  # background and class 1 in both images
    labels = torch.tensor([[1.0, 0], [1, 1]])  # the second image lacks a mask for class 2
    logits = learnable(torch.randn(2, 3, 2, 2))
    losses.self_supervision_loss(logits, masks, labels).backward()
    assert logits.grad is not None
    assert logits.grad[1].count_nonzero() == 0
    has_gradient = (logits.grad[0].abs().sum(0) > 0).tolist()
    assert has_gradient == [[True, False], [False, True]], "unassigned pixels have none"


def test_images_that_do_not_count_have_no_segmentation_loss() -> None:
    logits = learnable(torch.randn(2, 3, 4, 4, dtype=torch.float64))
    target = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    loss = losses.segmentation_loss(logits, target, torch.tensor([1.0, 0], dtype=torch.float64))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].count_nonzero() == 0
    alone = losses.segmentation_loss(logits[:1], target[:1], torch.ones(1, dtype=torch.float64))
    assert_close(loss, alone)


def test_workers_share_the_images_that_count() -> None:
    logits, _ = random_batch(seed=2)
    target = torch.rand(logits.shape, dtype=torch.float64)
    weight = torch.tensor([1, 1, 0, 1], dtype=torch.float64)

    def loss(rows: slice, mean: Mean, logits: Tensor) -> Tensor:
        return losses.segmentation_loss(logits[rows], target[rows], weight[rows], mean)

    check_workers(loss, logits, counted=weight.sum())


def _self_supervision(now: Tensor, before: Tensor) -> Tensor:
    masks = torch.cat([before, before[:, :2]], 1)
    return losses.self_supervision_loss(now, masks, torch.ones(4, 4))


def _segmentation(now: Tensor, before: Tensor) -> Tensor:
    target = torch.cat([before, before[:, :2]], 1)
    return losses.segmentation_loss(now, target, before[:, 0, 0, 0])


@pytest.mark.parametrize("loss", [_self_supervision, _segmentation])
def test_no_gradient_flows_into_targets(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, _ = random_batch(seed=5)
    now = learnable(logits)
    before = learnable(torch.roll(logits, 1, 0)[:, :3].sigmoid())
    loss(now, before).backward()
    assert now.grad is not None
    assert now.grad.count_nonzero() > 0
    assert before.grad is None


def test_inputs_are_left_as_they_were() -> None:
    z = load("wilson_default")
    before = {key: value.clone() for key, value in z.items()}
    wilson_losses(z, z["in.localizer_logits"], z["in.logits"], alpha=0.5)
    for key, value in z.items():
        assert torch.equal(value, before[key]), key
