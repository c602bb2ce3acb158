"""Losses against the papers' code (tests/golden), against hand-derived values, and against the rules every loss obeys."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training import losses, pseudo_labels
from training.config import VOID

MIB = ["mib", "mib_many_classes"]
WILSON = ["wilson_default", "wilson_all_class_supervision", "wilson_single_image"]
SUMMED_IN_FLOAT32 = {"bce_onehot_sum", "icarl_joint"}  # by the code that made the golden numbers

PIXEL_LOSSES: dict[str, Callable[[dict[str, Tensor], Tensor], Tensor]] = {
    "cross_entropy": lambda z, x: losses.cross_entropy(x, z["in.target"]),
    "bce_onehot_sum": lambda z, x: losses.binary_cross_entropy(x, z["in.target"]),
    "icarl_joint": lambda z, x: losses.joint_binary_cross_entropy(
        x, z["in.target"], z["in.previous_logits"]
    ),
    "lwf_mc_distillation": lambda z, x: losses.binary_distillation(x, z["in.previous_logits"]),
    "unbiased_ce": lambda z, x: losses.unbiased_cross_entropy(
        x, z["in.target"], int(z["meta.n_previous"])
    ),
    "unbiased_ce_old_labels_given": lambda z, x: losses.unbiased_cross_entropy(
        x, z["in.target_with_old_labels"], int(z["meta.n_previous"])
    ),
    "kd.alpha1": lambda z, x: losses.distillation(x, z["in.previous_logits"]),
    "kd.alpha0.5": lambda z, x: losses.distillation(x, z["in.previous_logits"], 0.5),
    "kd.alpha2": lambda z, x: losses.distillation(x, z["in.previous_logits"], 2),
    "unbiased_kd.alpha1": lambda z, x: losses.unbiased_distillation(x, z["in.previous_logits"]),
    "unbiased_kd.alpha0.5": lambda z, x: losses.unbiased_distillation(
        x, z["in.previous_logits"], 0.5
    ),
    "unbiased_kd.alpha2": lambda z, x: losses.unbiased_distillation(x, z["in.previous_logits"], 2),
}


def load(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A golden file's inputs in `dtype` and its outputs in float64."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return {
        key: value.to(dtype) if key.startswith("in.") and value.is_floating_point() else value
        for key, value in tensors.items()
    }


def learnable(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def close(actual: Tensor, golden: Tensor, relative: float = 1e-9) -> None:
    """Agreement relative to the largest value: gradients are tiny and must not pass for being so."""
    assert_close(
        actual.detach().double(), golden, rtol=relative, atol=relative * golden.abs().max().item()
    )


def wilson_losses(
    z: dict[str, Tensor], localizer_logits: Tensor, logits: Tensor, alpha: float
) -> dict[str, Tensor]:
    """The losses of a weak step without the encoder's, by the golden files' names."""
    labels, previous_logits, scores = (
        z["in.image_labels"],
        z["in.previous_logits"],
        z["in.localizer_logits_eval"],
    )
    unsupervised = 1 if z["meta.all_class_supervision"] else int(z["meta.n_previous"])
    target, image_weight = pseudo_labels.pseudo_supervision(scores, previous_logits, labels, alpha)
    return {
        "cls": losses.classification_loss(
            losses.ngwp_focal_pooling(localizer_logits), labels, unsupervised
        ),
        "loc": losses.localization_prior_loss(localizer_logits, previous_logits),
        "sss": losses.self_supervision_loss(
            localizer_logits, z["out.pseudo_mask_onehot"].to(logits.dtype), labels
        ),
        "seg": losses.segmentation_loss(logits, target, image_weight),
    }


@pytest.mark.parametrize("file", MIB)
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_agree_with_the_published_code(file: str, name: str) -> None:
    z = load(file)
    logits = learnable(z["in.logits"])
    loss = PIXEL_LOSSES[name](z, logits)
    relative = 1e-6 if name in SUMMED_IN_FLOAT32 else 1e-9
    close(loss, z[f"out.{name}"], relative)
    loss.backward()
    gradient = z.get(f"out.{name}.grad_logits")
    if gradient is not None:
        close(logits.grad, gradient, relative)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_hold_in_float32(name: str) -> None:
    z = load("mib", torch.float32)
    loss = PIXEL_LOSSES[name](z, z["in.logits"])
    assert loss.dtype == torch.float32
    close(loss, z[f"out.{name}"], 1e-5)


@pytest.mark.parametrize("file", MIB)
def test_initialisation_agrees_with_the_published_code(file: str) -> None:
    z = load(file)
    weight, bias, background_bias = losses.initialise_from_background(
        z["in.bg_weight"], z["in.bg_bias"], int(z["meta.n_new"])
    )
    close(weight, z["out.new_weight"])
    close(bias, z["out.new_bias"])
    close(background_bias, z["out.bg_bias"])


@pytest.mark.parametrize("file", WILSON)
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_wilson_losses_agree_with_the_published_code(
    file: str, dtype: torch.dtype, relative: float
) -> None:
    z = load(file, dtype)
    close(losses.ngwp_focal_pooling(z["in.localizer_logits"]), z["out.pooled_scores"], relative)
    close(
        losses.ngwp_focal_pooling(z["in.localizer_logits"], focal=False),
        z["out.pooled_scores_no_focal"],
        relative,
    )
    for alpha in (0, 0.3, 0.5, 0.7, 1):
        terms = wilson_losses(z, z["in.localizer_logits"], z["in.logits"], alpha)
        close(terms["seg"], z[f"out.alpha{alpha}.loss_seg"], relative)
        close(
            torch.stack(list(terms.values())).sum() + z["out.loss_enc"],
            z[f"out.alpha{alpha}.total"],
            relative,
        )
        for name in ("cls", "loc", "sss"):
            close(terms[name], z[f"out.loss_{name}"], relative)


@pytest.mark.parametrize(
    ("file", "alpha"),
    [("wilson_default", 0.5), ("wilson_default", 1), ("wilson_all_class_supervision", 0.5)],
)
def test_wilson_gradients_agree_with_the_published_code(file: str, alpha: float) -> None:
    z = load(file)
    localizer_logits, logits = learnable(z["in.localizer_logits"]), learnable(z["in.logits"])
    torch.stack(list(wilson_losses(z, localizer_logits, logits, alpha).values())).sum().backward()
    close(logits.grad, z[f"out.alpha{alpha}.grad_logits"])
    close(
        localizer_logits.grad, z["out.alpha0.5.grad_localizer_logits"]
    )  # alpha concerns the segmentation loss alone


def test_warmup_agrees_with_the_published_code() -> None:
    z = load("wilson_default")
    localizer_logits, features = learnable(z["in.localizer_logits"]), learnable(z["in.features"])
    encoder = losses.encoder_distillation(features, z["in.previous_features"])
    terms = wilson_losses(z, localizer_logits, z["in.logits"], alpha=0.5)
    loss = terms["cls"] + terms["loc"] + encoder
    loss.backward()
    close(encoder, z["out.loss_enc"])
    close(loss, z["out.warmup.total"])
    close(localizer_logits.grad, z["out.warmup.grad_localizer_logits"])
    close(features.grad, z["out.warmup.grad_features"])


# Hand-derived values: one pixel whose softmax or sigmoid is a plain fraction.


def pixel(*values: float) -> Tensor:
    """[1, C, 1, 1] of logarithms: its softmax is proportional to `values`."""
    return torch.tensor(values, dtype=torch.float64).log().view(1, -1, 1, 1)


def label(channel: int) -> Tensor:
    return torch.tensor([[[channel]]])


@pytest.mark.parametrize(("channel", "probability"), [(0, 3 / 8), (1, 3 / 8), (2, 5 / 8)])
def test_unbiased_background_is_background_or_any_previous_class(
    channel: int, probability: float
) -> None:
    loss = losses.unbiased_cross_entropy(pixel(1, 2, 5), label(channel), previous_channels=2)
    assert loss.item() == pytest.approx(-math.log(probability))


def test_unbiased_distillation_lets_background_become_a_new_class() -> None:
    loss = losses.unbiased_distillation(pixel(1, 2, 5), pixel(1, 3))
    assert loss.item() == pytest.approx(-(1 / 4 * math.log(6 / 8) + 3 / 4 * math.log(2 / 8)) / 2)


def test_plain_distillation_does_not_see_new_classes() -> None:
    loss = losses.distillation(pixel(1, 2, 5), pixel(1, 3))
    assert loss.item() == pytest.approx(-(1 / 4 * math.log(1 / 3) + 3 / 4 * math.log(2 / 3)) / 2)


def test_alpha_sharpens_only_the_previous_model() -> None:
    assert_close(
        losses.distillation(pixel(1, 2), pixel(1, 3), alpha=2),
        losses.distillation(pixel(1, 2), pixel(1, 9)),
    )


def test_initialised_classes_share_the_background_evenly() -> None:
    features = torch.randn(5, 4, dtype=torch.float64)
    weight, bias = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    new_weight, new_bias, background_bias = losses.initialise_from_background(
        weight[0], bias[:1], new_classes=2
    )
    previous = (features @ weight.T + bias).softmax(1)
    bias = torch.cat([background_bias, bias[1:], new_bias])
    now = (features @ torch.cat([weight, new_weight]).T + bias).softmax(1)
    assert_close(now[:, 1:3], previous[:, 1:])
    for channel in (0, 3, 4):
        assert_close(now[:, channel], previous[:, 0] / 3)


def test_initialisation_keeps_the_shape_of_a_convolution() -> None:
    weight, bias, background_bias = losses.initialise_from_background(
        torch.randn(8, 1, 1), torch.randn(1), new_classes=3
    )
    assert (weight.shape, bias.shape, background_bias.shape) == ((3, 8, 1, 1), (3,), (1,))


def test_pooling_by_attention_weighs_pixels_by_their_softmax() -> None:
    logits = torch.tensor([0, 0, math.log(3), 0], dtype=torch.float64).view(
        1, 2, 1, 2
    )  # softmax of channel 1: 3/4, 1/2
    scores = losses.attention_pooling(logits)
    assert scores[0].tolist() == pytest.approx([0, 0.76 * math.log(3) / (0.76 + 0.51)])


def test_the_semantic_prior_looks_for_a_class_where_one_like_it_is_seen() -> None:
    """Two pixels, one new class after background and one previous class, which the second pixel shows."""
    localizer = torch.zeros(2, 3, 1, 2, dtype=torch.float64)
    localizer[:, 2] = math.log(3)  # sigmoid 3/4
    previous = (
        torch.tensor([5.0, 0, 0, 5], dtype=torch.float64).view(1, 2, 1, 2).expand(2, -1, -1, -1)
    )
    similarity = torch.tensor([[1, 4]], dtype=torch.float64)
    labels = torch.tensor(
        [[0.0, 1], [1, 0]], dtype=torch.float64
    )  # the second image lacks the new class, and counts as 0
    found = losses.semantic_prior_loss(localizer, previous, labels, similarity)
    wanted = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-4))]
    pixels = [-(p * math.log(3 / 4) + (1 - p) * math.log(1 / 4)) for p in wanted]
    assert found.item() == pytest.approx(sum(pixels) / 4)


def test_classification_leaves_previous_classes_alone() -> None:
    scores = learnable(torch.zeros(2, 5))
    losses.classification_loss(
        scores, torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]]), previous_channels=3
    ).backward()
    assert scores.grad[:, :3].count_nonzero() == 0
    assert scores.grad[:, 3:].count_nonzero() == 4


def test_self_supervision_waits_for_masks_of_all_labelled_classes() -> None:
    masks = torch.zeros(2, 3, 2, 2)
    masks[:, 0, 0, 0] = masks[:, 1, 1, 1] = 1  # background and class 1 in both images
    labels = torch.tensor([[1.0, 0], [1, 1]])  # the second image lacks a mask for class 2
    logits = learnable(torch.randn(2, 3, 2, 2))
    losses.self_supervision_loss(logits, masks, labels).backward()
    assert logits.grad[1].count_nonzero() == 0
    assert (logits.grad[0].abs().sum(0) > 0).tolist() == [
        [True, False],
        [False, True],
    ]  # unassigned pixels teach nothing


def test_images_that_do_not_count_have_no_segmentation_loss() -> None:
    logits, target = (
        learnable(torch.randn(2, 3, 4, 4, dtype=torch.float64)),
        torch.rand(2, 3, 4, 4, dtype=torch.float64),
    )
    loss = losses.segmentation_loss(logits, target, torch.tensor([1.0, 0], dtype=torch.float64))
    loss.backward()
    assert logits.grad[1].count_nonzero() == 0
    alone = losses.segmentation_loss(logits[:1], target[:1], torch.ones(1, dtype=torch.float64))
    assert_close(loss, alone)


# Rules.

TARGETED: dict[
    str, Callable[..., Tensor]
] = {  # losses of logits [B, 5, H, W] with a denominator that depends on the data
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "unbiased_cross_entropy": partial(losses.unbiased_cross_entropy, previous_channels=3),
}


def batch(seed: int, size: int = 4, void: float = 0.3) -> tuple[Tensor, Tensor]:
    """Logits [size, 5, 6, 7] and targets with labels 0, 3, 4 and a growing share of void from image to image."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 5, 6, 7, dtype=torch.float64, generator=generator)
    target = torch.tensor([0, 3, 4])[torch.randint(0, 3, (size, 6, 7), generator=generator)]
    share = torch.linspace(0, 2 * void, size).view(-1, 1, 1)
    return logits, torch.where(torch.rand(size, 6, 7, generator=generator) < share, VOID, target)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32), alpha=st.floats(0.1, 3), scale=st.sampled_from([1e-3, 1.0, 50.0])
)
def test_unbiased_losses_are_plain_ones_where_nothing_is_folded(
    seed: int, alpha: float, scale: float
) -> None:
    logits, target = batch(seed)
    logits, previous = scale * logits, scale * torch.roll(logits, 1, 1)
    assert_close(
        losses.unbiased_cross_entropy(logits, target, previous_channels=1),
        losses.cross_entropy(logits, target),
    )
    assert_close(
        losses.unbiased_distillation(logits, previous, alpha),
        losses.distillation(logits, previous, alpha),
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), classes=st.integers(1, 4))
def test_distillation_is_least_where_the_models_agree(seed: int, classes: int) -> None:
    logits, _ = batch(seed)
    previous = learnable(logits[:, :classes])
    losses.distillation(previous, logits[:, :classes]).backward()
    assert_close(previous.grad, torch.zeros_like(previous))


@pytest.mark.parametrize("name", TARGETED)
def test_workers_that_share_the_denominator_get_the_loss_of_the_whole_batch(name: str) -> None:
    logits, target = batch(seed=1)
    assert (
        len({int((half != VOID).sum()) for half in target.split(2)}) == 2
    )  # the mean of two means would be wrong
    check_workers(
        lambda rows, mean, x: TARGETED[name](x[rows], target[rows], mean=mean),
        logits,
        labelled=(target != VOID).sum(),
    )


def test_workers_share_the_images_that_count() -> None:
    logits, _ = batch(seed=2)
    target, weight = (
        torch.rand(logits.shape, dtype=torch.float64),
        torch.tensor([1, 1, 0, 1], dtype=torch.float64),
    )
    check_workers(
        lambda rows, mean, x: losses.segmentation_loss(x[rows], target[rows], weight[rows], mean),
        logits,
        labelled=weight.sum(),
    )


def check_workers(
    loss: Callable[[slice, losses.Mean, Tensor], Tensor], logits: Tensor, labelled: Tensor
) -> None:
    """Two workers, as DDP runs them: values and gradients are averaged, the denominator is summed by `mean`."""

    def shared(total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
        return 2 * losses.divide(total, labelled.to(weight.dtype), epsilon)

    whole, halves = learnable(logits), learnable(logits)
    expected = loss(slice(None), losses.divide, whole)
    actual = (loss(slice(0, 2), shared, halves) + loss(slice(2, 4), shared, halves)) / 2
    assert_close(actual, expected, rtol=1e-13, atol=0)
    expected.backward()
    actual.backward()
    assert_close(halves.grad, whole.grad, rtol=1e-13, atol=1e-18)


@pytest.mark.parametrize("name", TARGETED)
def test_a_batch_without_labels_has_no_loss_and_no_gradient(name: str) -> None:
    logits, target = batch(seed=3)
    logits.requires_grad_()
    loss = TARGETED[name](logits, torch.full_like(target, VOID))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("name", TARGETED)
def test_labels_may_be_bytes_and_void_pixels_do_not_matter(name: str) -> None:
    logits, target = batch(seed=4)
    loss = TARGETED[name](logits, target)
    assert_close(TARGETED[name](logits, target.to(torch.uint8)), loss)
    elsewhere = torch.where((target == VOID).unsqueeze(1), 100.0, logits)
    assert_close(TARGETED[name](elsewhere, target), loss)


@pytest.mark.parametrize(
    "loss",
    [
        losses.distillation,
        losses.unbiased_distillation,
        losses.binary_distillation,
        losses.localization_prior_loss,
        lambda now, before: losses.joint_binary_cross_entropy(now, batch(5)[1], before),
        lambda now, before: losses.encoder_distillation(now[:, :3], before),
        lambda now, before: losses.self_supervision_loss(
            now, torch.cat([before, before[:, :2]], 1), torch.ones(4, 4)
        ),
        lambda now, before: losses.segmentation_loss(
            now, torch.cat([before, before[:, :2]], 1), before[:, 0, 0, 0]
        ),
    ],
)
def test_no_gradient_flows_into_what_the_previous_model_says(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    logits, _ = batch(seed=5)
    now, before = learnable(logits), learnable(torch.roll(logits, 1, 0)[:, :3].sigmoid())
    loss(now, before).backward()
    assert now.grad.count_nonzero() > 0
    assert before.grad is None


@pytest.mark.parametrize("file", ["mib", "wilson_default"])
def test_inputs_are_left_as_they_were(file: str) -> None:
    z = load(file)
    before = {key: value.clone() for key, value in z.items()}
    if file == "mib":
        for loss in PIXEL_LOSSES.values():
            loss(z, z["in.logits"])
        losses.initialise_from_background(z["in.bg_weight"], z["in.bg_bias"], 3)
    else:
        wilson_losses(z, z["in.localizer_logits"], z["in.logits"], alpha=0.5)
    for key, value in z.items():
        assert torch.equal(value, before[key]), key
