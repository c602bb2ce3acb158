"""Refinement, masks and pseudo-supervision against the papers' code (tests/golden) and against hand-made scenes."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training import pseudo_labels

WILSON = ["wilson_default", "wilson_all_class_supervision", "wilson_single_image"]


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_pamr_agrees_with_the_published_code(dtype: torch.dtype, tolerance: float) -> None:
    z = load("wilson_default")
    refined = pseudo_labels.pamr(
        z["in.image01"].to(dtype), z["in.localizer_logits_eval"].to(dtype).softmax(1)
    )
    assert refined.dtype == dtype
    assert_close(refined.double(), z["out.pamr"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("file", WILSON)
def test_masks_agree_with_the_published_code(file: str, dtype: torch.dtype) -> None:
    z = load(file)
    probabilities = pseudo_labels.keep_labelled(
        z["in.localizer_logits_eval"].to(dtype).softmax(1), z["in.image_labels"]
    )
    masks = pseudo_labels.pseudo_masks(pseudo_labels.pamr(z["in.image01"], probabilities))
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


# PAMR.


def scene(images: int = 2, size: int = 6) -> tuple[Tensor, Tensor]:
    """Images [B, 3, 2 size, 2 size] of noise and probabilities [B, 4, size, size]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (images, 3, 2 * size, 2 * size), generator=generator, dtype=torch.uint8
    )
    return pixels, torch.randn(
        images, 4, size, size, generator=generator, dtype=torch.float64
    ).softmax(1)


def test_pamr_is_its_formula() -> None:
    """Pixel by pixel, on a map smaller than the dilations reach, where nearly every neighbour is a repeated border."""
    pixels, probabilities = scene(images=1, size=4)
    image = torch.nn.functional.interpolate(
        pixels.double(), (4, 4), mode="bilinear", align_corners=True
    )[0].numpy()
    before, expected = probabilities[0].numpy(), np.zeros((4, 4, 4))
    for row in range(4):
        for column in range(4):
            block = [(d * y, d * x) for d in (1, 2, 8) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            places = [(np.clip(row + y, 0, 3), np.clip(column + x, 0, 3)) for y, x in block]
            spread = np.std([image[:, y, x] for y, x in places], axis=0, ddof=1)
            around = [place for place, shift in zip(places, block, strict=True) if shift != (0, 0)]
            likeness = [
                -np.mean(np.abs(image[:, row, column] - image[:, y, x]) / (1e-8 + 0.1 * spread))
                for y, x in around
            ]
            weights = np.exp(likeness) / np.exp(likeness).sum()
            expected[:, row, column] = sum(
                w * before[:, y, x] for w, (y, x) in zip(weights, around, strict=True)
            )
    refined = pseudo_labels.pamr(pixels, probabilities, iterations=1, dilations=(1, 2, 8))
    assert_close(refined[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_pamr_keeps_scores_within_a_colour() -> None:
    """Probabilities that leak over the border of a red and a blue half are drawn back behind it."""
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, :8] = image[:, 2, :, 8:] = 1
    leaky = torch.zeros(1, 2, 16, 16)
    leaky[:, 1, :, :10] = 0.9
    leaky[:, 0] = 1 - leaky[:, 1]
    refined = pseudo_labels.pamr(image, leaky)
    assert refined[0, 1, :, :8].min() > 0.85
    assert refined[0, 1, :, 8:].max() < 0.3


def test_pamr_does_not_depend_on_how_pixels_are_scaled() -> None:
    pixels, probabilities = scene()
    refined = pseudo_labels.pamr(pixels, probabilities)
    mean, spread = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    )
    assert_close(
        pseudo_labels.pamr((pixels.double() - mean) / spread, probabilities),
        refined,
        rtol=0,
        atol=1e-6,
    )


def test_pamr_averages() -> None:
    """Weights are positive and sum to one, so probabilities stay probabilities, and a flat image is no special case."""
    pixels, probabilities = scene()
    for image in (pixels, torch.zeros_like(pixels)):
        refined = pseudo_labels.pamr(image, probabilities)
        assert refined.min() > 0
        assert_close(refined.sum(1), torch.ones(2, 6, 6, dtype=torch.float64))


def test_pamr_treats_images_and_channels_apart() -> None:
    pixels, probabilities = scene()
    refined = pseudo_labels.pamr(pixels, probabilities)
    assert_close(pseudo_labels.pamr(pixels[1:], probabilities[1:]), refined[1:])
    labels = torch.tensor([[1, 0, 0], [0, 0, 1]])  # nobody has class 2: its channel is skipped
    early = pseudo_labels.pamr(pixels, pseudo_labels.keep_labelled(probabilities, labels))
    assert_close(early, pseudo_labels.keep_labelled(refined, labels), rtol=0, atol=1e-15)


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
        [0, 0, 0, 0],  # torn between two classes
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]


def supervision(alpha: float) -> tuple[Tensor, Tensor]:
    """Two images of two pixels; channels are background, one previous class, two new ones; both images hold class 2."""
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
    assert_close(
        target[0, 0, 0], torch.tensor([0.2, 0.1])
    )  # the localizer's background is the smaller
    assert_close(
        target[1, 0, 0], torch.tensor([0.5, previous[1]])
    )  # the previous model's is, at the second pixel
    assert_close(target[:, 1, 0], torch.tensor([0.0, 1]).sigmoid().expand(2, 2))
    assert_close(target[:, 2, 0], torch.tensor([[0.6, 0.2], [0.3, 0.2]]))
    assert target[:, 3].count_nonzero() == 0  # not in either image
    assert image_weight.tolist() == [1, 1]


def test_hard_targets_drop_images_whose_class_wins_no_pixel() -> None:
    target, image_weight = supervision(alpha=1)
    assert target[:, 2, 0].tolist() == [
        [1, 1],
        [0, 0],
    ]  # the highest score goes to an absent class: the next best wins
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


def test_alpha_interpolates() -> None:
    (soft, _), (hard, _), (mixed, weight) = supervision(0), supervision(1), supervision(0.3)
    assert_close(mixed[:, 2:], 0.3 * hard[:, 2:] + 0.7 * soft[:, 2:])
    assert weight.tolist() == [1, 1]


def test_pseudo_supervision_reads_no_previous_class_from_the_localizer() -> None:
    z = load("wilson_all_class_supervision")
    scores, previous, labels = (
        z["in.localizer_logits_eval"],
        z["in.previous_logits"],
        z["in.image_labels"],
    )
    target, _ = pseudo_labels.pseudo_supervision(scores, previous, labels, 0.5)
    assert_close(target[:, 1:4], previous[:, 1:].sigmoid())


def test_targets_carry_no_gradient_and_leave_inputs_alone() -> None:
    z = load("wilson_default")
    z["in.localizer_logits_eval"].requires_grad_()
    before = {key: value.detach().clone() for key, value in z.items()}
    scores, labels = z["in.localizer_logits_eval"], z["in.image_labels"]
    probabilities = scores.softmax(1)
    kept = probabilities.detach().clone()
    refined = pseudo_labels.pamr(z["in.image01"], probabilities)
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
    previous, channels = (
        z["in.previous_logits"].to(dtype),
        int(z["meta.n_previous"] + z["meta.n_new"]),
    )
    unsure = pseudo_labels.entropy(previous, channels) * math.log(channels)
    assert_close(unsure.double(), z["out.entropy"], rtol=tolerance, atol=tolerance)
    labels, share = pseudo_labels.entropy_labels(
        z["in.target"], previous, z["in.entropy_thresholds"], channels
    )
    assert torch.equal(labels, z["out.pseudo_labels"])
    # The published code counts pixels in float32.
    assert_close(
        share.double(),
        z["out.adaptive_factor"],
        rtol=1e-8 if dtype == torch.float64 else 1e-6,
        atol=0,
    )


def test_labels_take_sure_predictions_and_leave_the_rest_of_background_out() -> None:
    """Two classes and background; the model is sure of pixels 0 and 3, torn at 1 and 2; pixel 3 has a label, 4 is void."""
    previous = torch.tensor([[0.0, 9, 0], [1, 0, 1], [0, 1, 0.5], [0, 9, 0], [0, 9, 0]]).T.view(
        1, 3, 1, 5
    )
    target = torch.tensor([[[0, 0, 0, 3, 255]]])
    labels, share = pseudo_labels.entropy_labels(
        target, previous, torch.tensor([0.001, 0.1, 0.001]), channels=4
    )
    assert labels.tolist() == [[[1, 255, 255, 3, 255]]]
    assert share.item() == pytest.approx(1 / 3)
    everything = pseudo_labels.entropy_labels(target, previous, torch.full((3,), 2.0), channels=4)
    assert everything[0].tolist() == [[[1, 0, 1, 3, 255]]]
    full = pseudo_labels.entropy_labels(
        torch.full((1, 1, 5), 3), previous, torch.ones(3), channels=4
    )
    assert full[0].tolist() == [[[3] * 5]]
    assert full[1].tolist() == [0], "no background, no share"


def test_the_histogram_counts_the_background_pixels_of_each_predicted_class() -> None:
    generator = torch.Generator().manual_seed(0)
    previous = 3 * torch.randn(2, 4, 9, 7, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 6, (2, 9, 7), generator=generator)
    counts = torch.zeros(4, 100, dtype=torch.int64)
    unsure, predicted = pseudo_labels.entropy(previous, 6), previous.argmax(1)
    for place in (target == 0).nonzero().tolist():
        counts[predicted[*place], min(int(unsure[*place] * 100), 99)] += 1
    assert torch.equal(pseudo_labels.entropy_histogram(target, previous, 6), counts)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_thresholds_are_medians_to_within_a_bin(count: int) -> None:
    values = (
        torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64) ** 2
    )
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
    """Before bins 0 to 3 the sums are 0, 0, 1 and 3, whatever the counts: bin 3 is found by 3 <= half <= 3 + its count."""

    def threshold(*counts: int) -> float:
        return pseudo_labels.median_thresholds(torch.tensor([counts]), published=True).item()

    assert threshold(4, 4, 0, 12) == pytest.approx((3 + (10 - 3) / 12) / 4)
    assert pseudo_labels.median_thresholds(torch.tensor([[4, 4, 0, 12]])).item() == pytest.approx(
        (3 + (10 - 8) / 12) / 4
    )
    assert threshold(12, 8, 0, 0) == pytest.approx(10 / 12 / 4), "in the first bin it is the median"
    assert threshold(8, 8, 8, 0) == math.inf, (
        "no bin is taken to hold half: every prediction becomes a label"
    )
    assert threshold(8, 8, 8, 2) == pytest.approx((3 + (13 - 6) / 2) / 4)
