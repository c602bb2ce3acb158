"""Check pseudo-labels against the papers' code (tests/golden) and on hand-made scenes."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training import pseudo_labels
from training.pamr import pamr

WILSON = ["wilson_default", "wilson_all_class_supervision", "wilson_single_image"]


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("file", WILSON)
def test_masks_agree_with_the_published_code(file: str, dtype: torch.dtype) -> None:
    z = load(file)
    probabilities = pseudo_labels.keep_labelled(
        z["in.localizer_logits_eval"].to(dtype).softmax(1), z["in.image_labels"]
    )
    masks = pseudo_labels.pseudo_masks(pamr(z["in.image01"], probabilities))
    assert torch.equal(masks.double(), z["out.pseudo_mask_onehot"])


@pytest.mark.parametrize(
    ("file", "alpha"), [("wilson_default", 0.5), ("wilson_default", 1), ("wilson_single_image", 0)]
)
def test_pseudo_supervision_agrees_with_the_published_code(file: str, alpha: float) -> None:
    z = load(file)
    target, image_weight = pseudo_labels.pseudo_supervision(
        z["in.localizer_logits_eval"], z["in.previous_logits"], z["in.image_labels"], alpha
    )
    assert_close(target, z[f"out.alpha{alpha}.target"], rtol=0, atol=1e-9)
    assert torch.equal(image_weight, z[f"out.alpha{alpha}.image_weight"])


# Masks and targets.


def test_masks_take_confident_pixels_of_one_class() -> None:
    probabilities = torch.tensor(
        [
            [0.69, 0.71, 0.60, 1.00, 0.0, 0.0],  # background: its best is 1, so above 0.7
            [0.00, 0.00, 0.31, 0.00, 0.5, 0.29],  # its best is 0.5, so above 0.3
            [0.00, 0.15, 0.00, 0.00, 0.0, 0.19],  # its best is 0.19, below the floor of 0.2
            [0.00, 0.00, 0.35, 0.00, 0.0, 0.4],  # its best is 0.4, so above 0.24
        ]
    ).view(1, 4, 1, 6)
    masks = pseudo_labels.pseudo_masks(probabilities)
    assert masks[0, :, 0].T.tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        # Two classes exceed their thresholds.
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]


def supervision(alpha: float) -> tuple[Tensor, Tensor]:
    """Return targets of two images of two pixels, with a previous and two new classes.

    Both images have class 2.
    """
    scores = torch.tensor(
        [
            [[0.2, 0.1], [0.1, 0.1], [0.6, 0.2], [0.1, 0.6]],
            [[0.5, 0.6], [0.1, 0.1], [0.3, 0.2], [0.1, 0.1]],
        ]
    )
    previous = torch.tensor([[[2.0, -2], [0, 1]], [[2, -2], [0, 1]]])
    labels = torch.tensor([[0.0, 1, 0], [0, 1, 0]])
    return pseudo_labels.pseudo_supervision(
        scores.log().unsqueeze(2), previous.unsqueeze(2), labels, alpha
    )


def test_soft_targets_mix_localizer_and_previous_model() -> None:
    target, image_weight = supervision(alpha=0)
    previous = torch.tensor([2.0, -2]).sigmoid()
    # The localizer's background is the smaller, except at the last pixel.
    assert_close(target[0, 0, 0], torch.tensor([0.2, 0.1]))
    assert_close(target[1, 0, 0], torch.tensor([0.5, previous[1]]))
    assert_close(target[:, 1, 0], torch.tensor([0.0, 1]).sigmoid().expand(2, 2))
    assert_close(target[:, 2, 0], torch.tensor([[0.6, 0.2], [0.3, 0.2]]))
    # Class 3 is in neither image.
    assert target[:, 3].count_nonzero() == 0
    assert image_weight.tolist() == [1, 1]


def test_hard_targets_drop_images_whose_class_wins_no_pixel() -> None:
    target, image_weight = supervision(alpha=1)
    # Where a class that the image does not have is the highest, the next best wins.
    assert target[:, 2, 0].tolist() == [[1, 1], [0, 0]]
    assert image_weight.tolist() == [1, 0]


def test_background_is_the_smaller_of_both_or_their_mixture() -> None:
    scores, previous = torch.randn(2, 6, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    labels = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]])

    def target(background_mix: float | None) -> Tensor:
        return pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5, background_mix)[0]

    smaller, old, localizer, half = target(None), target(0), target(1), target(0.5)
    assert_close(old[:, 0], previous[:, 0].sigmoid())
    assert_close(smaller[:, 0], torch.minimum(old[:, 0], localizer[:, 0]))
    assert_close(half[:, 0], (old[:, 0] + localizer[:, 0]) / 2)
    assert_close(half[:, 1:], smaller[:, 1:])


def test_new_classes_yield_to_previous_ones_where_asked() -> None:
    scores, previous = torch.randn(2, 6, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    labels = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]])
    plain, _ = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5, 0.1)
    yielding, weight = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5, 0.1, True)
    first, second, third = previous[:, 1:].sigmoid().unbind(1)
    room = 1 - torch.maximum(torch.maximum(first, second), third)
    assert_close(yielding[:, :4], plain[:, :4])
    assert_close(yielding[:, 4], plain[:, 4] * room)
    assert_close(yielding[:, 5], plain[:, 5] * room)
    assert weight.tolist() == [1, 1]


def test_the_odds_of_new_classes_are_multiplied_where_asked() -> None:
    torch.manual_seed(0)
    scores, previous = torch.randn(2, 6, 3, 3), torch.randn(2, 4, 3, 3)
    labels = torch.tensor([[0.0, 0, 0, 1, 1], [0, 0, 0, 1, 0]])
    plain, weight = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5)
    raised, same = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5, new_class_odds=3)
    assert torch.equal(weight, same)
    assert torch.equal(raised[:, :4], plain[:, :4])
    odds = plain[:, 4:] / (1 - plain[:, 4:])
    assert_close(raised[:, 4:] / (1 - raised[:, 4:]), 3 * odds)
    # A class that the image does not have stays at 0.
    assert torch.equal(raised[1, 5], torch.zeros(3, 3))


def test_alpha_interpolates() -> None:
    (soft, _), (hard, _), (mixed, weight) = supervision(0), supervision(1), supervision(0.3)
    assert_close(mixed[:, 2:], 0.3 * hard[:, 2:] + 0.7 * soft[:, 2:])
    assert weight.tolist() == [1, 1]


def test_pseudo_supervision_reads_no_previous_class_from_the_localizer() -> None:
    z = load("wilson_all_class_supervision")
    scores = z["in.localizer_logits_eval"]
    previous = z["in.previous_logits"]
    labels = z["in.image_labels"]
    target, _ = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5)
    assert_close(target[:, 1:4], previous[:, 1:].sigmoid())


def test_targets_carry_no_gradient_and_leave_inputs_alone() -> None:
    z = load("wilson_default")
    z["in.localizer_logits_eval"].requires_grad_()
    before = {key: value.detach().clone() for key, value in z.items()}
    scores, labels = z["in.localizer_logits_eval"], z["in.image_labels"]
    probabilities = scores.softmax(1)
    kept = probabilities.detach().clone()
    refined = pamr(z["in.image01"], probabilities)
    target, image_weight = pseudo_labels.pseudo_supervision(
        scores, z["in.previous_logits"], labels, 0.5
    )
    made = [
        refined,
        pseudo_labels.keep_labelled(probabilities, labels),
        pseudo_labels.pseudo_masks(probabilities),
        target,
        image_weight,
    ]
    assert not any(tensor.requires_grad for tensor in made)
    assert torch.equal(probabilities, kept)
    for key, value in z.items():
        assert torch.equal(value, before[key]), key


# PLOP's labels by entropy.


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_labels_by_entropy_agree_with_the_published_code(
    dtype: torch.dtype, tolerance: float
) -> None:
    z = load("plop")
    previous = z["in.previous_logits"].to(dtype)
    channels = int(z["meta.n_previous"] + z["meta.n_new"])
    entropy = pseudo_labels.entropy(previous, channels) * math.log(channels)
    assert_close(entropy.double(), z["out.entropy"], rtol=tolerance, atol=tolerance)
    labels, share = pseudo_labels.entropy_labels(
        z["in.target"], previous, z["in.entropy_thresholds"], channels
    )
    assert torch.equal(labels, z["out.pseudo_labels"])
    # The published code counts pixels in float32.
    rtol = 1e-8 if dtype == torch.float64 else 1e-6
    assert_close(share.double(), z["out.adaptive_factor"], rtol=rtol, atol=0)


def test_labels_are_confident_predictions_and_other_background_is_left_out() -> None:
    """Pixels 0 and 3 have a low entropy, 1 and 2 a high one; pixel 3 has a label, 4 is void."""
    pixels = [[0.0, 9, 0], [1, 0, 1], [0, 1, 0.5], [0, 9, 0], [0, 9, 0]]
    previous = torch.tensor(pixels).T.view(1, 3, 1, 5)
    target = torch.tensor([[[0, 0, 0, 3, 255]]])
    labels, share = pseudo_labels.entropy_labels(
        target, previous, torch.tensor([0.001, 0.1, 0.001]), channels=4
    )
    assert labels.tolist() == [[[1, 255, 255, 3, 255]]]
    assert share.item() == pytest.approx(1 / 3)
    everything = pseudo_labels.entropy_labels(target, previous, torch.full((3,), 2.0), channels=4)
    assert everything[0].tolist() == [[[1, 0, 1, 3, 255]]]
    labelled = torch.full((1, 1, 5), 3)
    full = pseudo_labels.entropy_labels(labelled, previous, torch.ones(3), channels=4)
    assert full[0].tolist() == [[[3] * 5]]
    assert full[1].tolist() == [0], "no background, no share"


def test_the_histogram_counts_the_background_pixels_of_each_predicted_class() -> None:
    generator = torch.Generator().manual_seed(0)
    previous = 3 * torch.randn(2, 4, 9, 7, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 6, (2, 9, 7), generator=generator)
    counts = torch.zeros(4, 100, dtype=torch.int64)
    entropy = pseudo_labels.entropy(previous, 6)
    predicted = previous.argmax(1)
    for pixel in (target == 0).nonzero().tolist():
        counts[predicted[*pixel], min(int(entropy[*pixel] * 100), 99)] += 1
    assert torch.equal(pseudo_labels.entropy_histogram(target, previous, 6), counts)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_thresholds_are_medians_to_within_a_bin(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    values = torch.rand(count, generator=generator, dtype=torch.float64) ** 2
    histogram = torch.zeros(3, 100, dtype=torch.int64)
    histogram[1] = torch.bincount((values * 100).long(), minlength=100)
    thresholds = pseudo_labels.median_thresholds(histogram)
    lower, upper = values.sort().values[[(count - 1) // 2, count // 2]]
    assert lower - 0.01 <= thresholds[1] <= upper + 0.01
    assert thresholds[[0, 2]].tolist() == [0.001, 0.001], "a class that is never predicted"
    assert pseudo_labels.median_thresholds(histogram, least=0.9)[1] == max(0.9, thresholds[1])


def test_a_median_is_interpolated_in_its_bin() -> None:
    histogram = torch.tensor([[2, 0, 6, 2]])
    assert pseudo_labels.median_thresholds(histogram).tolist() == [pytest.approx((2 + 3 / 6) / 4)]


def test_published_thresholds_add_numbers_of_bins_for_their_counts() -> None:
    """Before bins 0 to 3 the sums are 0, 0, 1 and 3, so bin 3 holds 3 <= half <= 3 + its count."""

    def threshold(*counts: int) -> float:
        return pseudo_labels.median_thresholds(torch.tensor([counts]), published=True).item()

    assert threshold(4, 4, 0, 12) == pytest.approx((3 + (10 - 3) / 12) / 4)
    median = pseudo_labels.median_thresholds(torch.tensor([[4, 4, 0, 12]])).item()
    assert median == pytest.approx((3 + (10 - 8) / 12) / 4)
    assert threshold(12, 8, 0, 0) == pytest.approx(10 / 12 / 4), "in the first bin it is the median"
    # No bin holds half, so every prediction becomes a label.
    assert threshold(8, 8, 8, 0) == math.inf
    assert threshold(8, 8, 8, 2) == pytest.approx((3 + (13 - 6) / 2) / 4)


@pytest.mark.parametrize(("previous", "all_channels"), [(16, 21), (101, 151)])
def test_plops_entropy_never_exceeds_the_lowest_bins(previous: int, all_channels: int) -> None:
    uniform = torch.zeros(1, previous, 1, 1, dtype=torch.float64)
    largest = 1 / (previous * math.log(all_channels))
    found = pseudo_labels.entropy(uniform, all_channels).item()
    assert found == pytest.approx(largest, rel=1e-4)
    assert found * pseudo_labels.ENTROPY_BINS < 3


@pytest.mark.parametrize("published", [False, True])
def test_on_ade_every_background_pixel_becomes_a_pseudo_label(published: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 101, 8, 8, generator=generator, dtype=torch.float64)
    target = torch.zeros(2, 8, 8, dtype=torch.int64)
    histogram = pseudo_labels.entropy_histogram(target, logits, 151)
    thresholds = pseudo_labels.median_thresholds(histogram, published=published)
    labels, share = pseudo_labels.entropy_labels(target, logits, thresholds, 151)
    assert torch.equal(labels, logits.argmax(1))
    assert share.tolist() == pytest.approx([1, 1])
