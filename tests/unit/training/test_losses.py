"""Check losses against the papers' code (tests/golden), hand-derived values and general rules."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.support.losses import check_workers, close, learnable, load, random_batch
from training import losses
from training.config import VOID

MIB = ["mib", "mib_many_classes"]
# The code that made these golden numbers sums them in float32.
SUMMED_IN_FLOAT32 = {"bce_onehot_sum", "icarl_joint"}

Numbers = dict[str, Tensor]


def _cross_entropy(z: Numbers, logits: Tensor) -> Tensor:
    return losses.cross_entropy(logits, z["in.target"])


def _binary_cross_entropy(z: Numbers, logits: Tensor) -> Tensor:
    return losses.binary_cross_entropy(logits, z["in.target"])


def _joint(z: Numbers, logits: Tensor) -> Tensor:
    return losses.joint_binary_cross_entropy(logits, z["in.target"], z["in.previous_logits"])


def _binary_distillation(z: Numbers, logits: Tensor) -> Tensor:
    return losses.binary_distillation(logits, z["in.previous_logits"])


def _unbiased(z: Numbers, logits: Tensor, target: str = "in.target") -> Tensor:
    return losses.unbiased_cross_entropy(logits, z[target], int(z["meta.n_previous"]))


def _both_unbiased(z: Numbers, logits: Tensor, part: int, alpha: float = 1.0) -> Tensor:
    return losses.unbiased_losses(logits, z["in.target"], z["in.previous_logits"], alpha)[part]


def _distillation(z: Numbers, logits: Tensor, alpha: float) -> Tensor:
    return losses.distillation(logits, z["in.previous_logits"], alpha)


def _unbiased_distillation(z: Numbers, logits: Tensor, alpha: float) -> Tensor:
    return losses.unbiased_distillation(logits, z["in.previous_logits"], alpha)


# By the name of their golden number, or by that name and how they are computed.
PIXEL_LOSSES: dict[str, Callable[[Numbers, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "bce_onehot_sum": _binary_cross_entropy,
    "icarl_joint": _joint,
    "lwf_mc_distillation": _binary_distillation,
    "unbiased_ce": _unbiased,
    "unbiased_ce_old_labels_given": partial(_unbiased, target="in.target_with_old_labels"),
    "unbiased_ce together": partial(_both_unbiased, part=0),
    "unbiased_kd.alpha1 together": partial(_both_unbiased, part=1),
    "unbiased_kd.alpha0.5 together": partial(_both_unbiased, part=1, alpha=0.5),
    "kd.alpha1": partial(_distillation, alpha=1.0),
    "kd.alpha0.5": partial(_distillation, alpha=0.5),
    "kd.alpha2": partial(_distillation, alpha=2.0),
    "unbiased_kd.alpha1": partial(_unbiased_distillation, alpha=1.0),
    "unbiased_kd.alpha0.5": partial(_unbiased_distillation, alpha=0.5),
    "unbiased_kd.alpha2": partial(_unbiased_distillation, alpha=2.0),
}


@pytest.mark.parametrize("file", MIB)
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_agree_with_the_published_code(file: str, name: str) -> None:
    z = load(file)
    logits = learnable(z["in.logits"])
    loss = PIXEL_LOSSES[name](z, logits)
    relative = 1e-6 if name in SUMMED_IN_FLOAT32 else 1e-9
    name = name.removesuffix(" together")
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
    close(loss, z[f"out.{name.removesuffix(' together')}"], 1e-5)


@pytest.mark.parametrize("file", MIB)
def test_initialisation_agrees_with_the_published_code(file: str) -> None:
    z = load(file)
    weight, bias, background_bias = losses.initialise_from_background(
        z["in.bg_weight"], z["in.bg_bias"], int(z["meta.n_new"])
    )
    close(weight, z["out.new_weight"])
    close(bias, z["out.new_bias"])
    close(background_bias, z["out.bg_bias"])


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


def test_background_of_a_kept_image_is_background_or_any_new_class() -> None:
    """Against a sum over pixels, channel by channel."""
    logits, target = random_batch(seed=4)
    target = torch.where(target == 3, 1, target)
    logits.requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for image, mask in zip(logits, target, strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                label = int(mask[row, column])
                if label == VOID:
                    continue
                p = image[:, row, column].exp() / image[:, row, column].exp().sum()
                # Channels 3 and 4 are new: label 4 reads as background.
                total = total - (p[label] if label == 1 else p[0] + p[3] + p[4]).log()
                count += 1
    assert {0, 1, 4, VOID} == set(target.unique().tolist())
    wanted = total / count
    found = losses.memory_cross_entropy(logits, target, previous_channels=3)
    assert_close(found, wanted)
    (by_hand,) = torch.autograd.grad(wanted, logits)
    (ours,) = torch.autograd.grad(found, logits)
    assert_close(ours, by_hand)


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


# Rules.


def _first_of_both(logits: Tensor, target: Tensor, mean: losses.Mean = losses.divide) -> Tensor:
    previous = torch.zeros_like(logits[:, :3])
    return losses.unbiased_losses(logits, target, previous, 1.0, mean)[0]


# Losses of logits [B, 5, H, W] with a denominator that depends on the data.
TARGETED: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "unbiased_cross_entropy": partial(losses.unbiased_cross_entropy, previous_channels=3),
    "memory_cross_entropy": partial(losses.memory_cross_entropy, previous_channels=3),
    "unbiased_losses": _first_of_both,
}


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32), alpha=st.floats(0.1, 3), scale=st.sampled_from([1e-3, 1.0, 50.0])
)
def test_unbiased_losses_are_plain_ones_where_nothing_is_folded(
    seed: int, alpha: float, scale: float
) -> None:
    logits, target = random_batch(seed)
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
    logits, _ = random_batch(seed)
    previous = learnable(logits[:, :classes])
    losses.distillation(previous, logits[:, :classes]).backward()
    assert_close(previous.grad, torch.zeros_like(previous))


@pytest.mark.parametrize("name", TARGETED)
def test_workers_that_share_the_denominator_get_the_loss_of_the_whole_batch(name: str) -> None:
    logits, target = random_batch(seed=1)
    counts = {int((half != VOID).sum()) for half in target.split(2)}
    assert len(counts) == 2, "with equal counts the mean of two means would be right"

    def loss(rows: slice, mean: losses.Mean, logits: Tensor) -> Tensor:
        return TARGETED[name](logits[rows], target[rows], mean=mean)

    check_workers(loss, logits, counted=(target != VOID).sum())


@pytest.mark.parametrize("name", TARGETED)
def test_a_batch_without_labels_has_no_loss_and_no_gradient(name: str) -> None:
    logits, target = random_batch(seed=3)
    logits.requires_grad_()
    loss = TARGETED[name](logits, torch.full_like(target, VOID))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("name", TARGETED)
def test_labels_may_be_bytes_and_void_pixels_do_not_matter(name: str) -> None:
    logits, target = random_batch(seed=4)
    loss = TARGETED[name](logits, target)
    assert_close(TARGETED[name](logits, target.to(torch.uint8)), loss)
    elsewhere = torch.where((target == VOID).unsqueeze(1), 100.0, logits)
    assert_close(TARGETED[name](elsewhere, target), loss)


def _joint_on_random_masks(now: Tensor, before: Tensor) -> Tensor:
    return losses.joint_binary_cross_entropy(now, random_batch(5)[1], before)


def _encoder(now: Tensor, before: Tensor) -> Tensor:
    return losses.encoder_distillation(now[:, :3], before)


@pytest.mark.parametrize(
    "loss",
    [
        losses.distillation,
        losses.unbiased_distillation,
        losses.binary_distillation,
        losses.localization_prior_loss,
        _joint_on_random_masks,
        _encoder,
    ],
)
def test_no_gradient_flows_into_previous_outputs(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    logits, _ = random_batch(seed=5)
    now = learnable(logits)
    before = learnable(torch.roll(logits, 1, 0)[:, :3].sigmoid())
    loss(now, before).backward()
    assert now.grad is not None
    assert now.grad.count_nonzero() > 0
    assert before.grad is None


def test_inputs_are_left_as_they_were() -> None:
    z = load("mib")
    before = {key: value.clone() for key, value in z.items()}
    for loss in PIXEL_LOSSES.values():
        loss(z, z["in.logits"])
    losses.initialise_from_background(z["in.bg_weight"], z["in.bg_bias"], 3)
    for key, value in z.items():
        assert torch.equal(value, before[key]), key
