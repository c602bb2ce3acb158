"""Refinement, masks and pseudo-supervision against the papers' code (tests/golden) and against hand-made scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from training import pseudo

GOLDEN = Path(__file__).parents[2] / "golden"
WILSON = ["wilson_default", "wilson_all_class_supervision", "wilson_single_image"]


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_pamr_agrees_with_the_published_code(dtype: torch.dtype, tolerance: float) -> None:
    z = load("wilson_default")
    refined = pseudo.pamr(z["in.image01"].to(dtype), z["in.localizer_logits_eval"].to(dtype).softmax(1))
    assert refined.dtype == dtype
    assert_close(refined.double(), z["out.pamr"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("file", WILSON)
def test_masks_agree_with_the_published_code(file: str, dtype: torch.dtype) -> None:
    z = load(file)
    probabilities = pseudo.keep_labelled(z["in.localizer_logits_eval"].to(dtype).softmax(1), z["in.image_labels"])
    masks = pseudo.pseudo_masks(pseudo.pamr(z["in.image01"], probabilities))
    assert torch.equal(masks.double(), z["out.pseudo_mask_onehot"])


@pytest.mark.parametrize(("file", "alpha"), [("wilson_default", 0.5), ("wilson_default", 1), ("wilson_single_image", 0)])
def test_pseudo_supervision_agrees_with_the_published_code(file: str, alpha: float) -> None:
    z = load(file)
    target, image_weight = pseudo.pseudo_supervision(
        z["in.localizer_logits_eval"], z["in.previous_logits"], z["in.image_labels"], alpha
    )
    assert_close(target, z[f"out.alpha{alpha}.target"], rtol=0, atol=1e-9)
    assert torch.equal(image_weight, z[f"out.alpha{alpha}.image_weight"])


# PAMR.


def scene(images: int = 2, size: int = 6) -> tuple[Tensor, Tensor]:
    """Images [B, 3, 2 size, 2 size] of noise and probabilities [B, 4, size, size]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 2 * size, 2 * size), generator=generator, dtype=torch.uint8)
    return pixels, torch.randn(images, 4, size, size, generator=generator, dtype=torch.float64).softmax(1)


def test_pamr_is_its_formula() -> None:
    """Pixel by pixel, on a map smaller than the dilations reach, where nearly every neighbour is a repeated border."""
    pixels, probabilities = scene(images=1, size=4)
    image = torch.nn.functional.interpolate(pixels.double(), (4, 4), mode="bilinear", align_corners=True)[0].numpy()
    before, expected = probabilities[0].numpy(), np.zeros((4, 4, 4))
    for row in range(4):
        for column in range(4):
            block = [(d * y, d * x) for d in (1, 2, 8) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            places = [(np.clip(row + y, 0, 3), np.clip(column + x, 0, 3)) for y, x in block]
            spread = np.std([image[:, y, x] for y, x in places], axis=0, ddof=1)
            around = [place for place, shift in zip(places, block, strict=True) if shift != (0, 0)]
            likeness = [-np.mean(np.abs(image[:, row, column] - image[:, y, x]) / (1e-8 + 0.1 * spread)) for y, x in around]
            weights = np.exp(likeness) / np.exp(likeness).sum()
            expected[:, row, column] = sum(w * before[:, y, x] for w, (y, x) in zip(weights, around, strict=True))
    refined = pseudo.pamr(pixels, probabilities, iterations=1, dilations=(1, 2, 8))
    assert_close(refined[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_pamr_keeps_scores_within_a_colour() -> None:
    """Probabilities that leak over the border of a red and a blue half are drawn back behind it."""
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, :8] = image[:, 2, :, 8:] = 1
    leaky = torch.zeros(1, 2, 16, 16)
    leaky[:, 1, :, :10] = 0.9
    leaky[:, 0] = 1 - leaky[:, 1]
    refined = pseudo.pamr(image, leaky)
    assert refined[0, 1, :, :8].min() > 0.85
    assert refined[0, 1, :, 8:].max() < 0.3


def test_pamr_does_not_depend_on_how_pixels_are_scaled() -> None:
    pixels, probabilities = scene()
    refined = pseudo.pamr(pixels, probabilities)
    mean, spread = (torch.tensor(v).view(1, 3, 1, 1) for v in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))
    assert_close(pseudo.pamr((pixels.double() - mean) / spread, probabilities), refined, rtol=0, atol=1e-6)


def test_pamr_averages() -> None:
    """Weights are positive and sum to one, so probabilities stay probabilities, and a flat image is no special case."""
    pixels, probabilities = scene()
    for image in (pixels, torch.zeros_like(pixels)):
        refined = pseudo.pamr(image, probabilities)
        assert refined.min() > 0
        assert_close(refined.sum(1), torch.ones(2, 6, 6, dtype=torch.float64))


def test_pamr_treats_images_and_channels_apart() -> None:
    pixels, probabilities = scene()
    refined = pseudo.pamr(pixels, probabilities)
    assert_close(pseudo.pamr(pixels[1:], probabilities[1:]), refined[1:])
    labels = torch.tensor([[1, 0, 0], [0, 0, 1]])  # nobody has class 2: its channel is skipped
    early = pseudo.pamr(pixels, pseudo.keep_labelled(probabilities, labels))
    assert_close(early, pseudo.keep_labelled(refined, labels), rtol=0, atol=1e-15)


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
    masks = pseudo.pseudo_masks(probabilities)
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
    scores = torch.tensor([[[0.2, 0.1], [0.1, 0.1], [0.6, 0.2], [0.1, 0.6]], [[0.5, 0.6], [0.1, 0.1], [0.3, 0.2], [0.1, 0.1]]])
    previous = torch.tensor([[[2.0, -2], [0, 1]], [[2, -2], [0, 1]]])
    labels = torch.tensor([[0.0, 1, 0], [0, 1, 0]])
    return pseudo.pseudo_supervision(scores.log().unsqueeze(2), previous.unsqueeze(2), labels, alpha)


def test_soft_targets_mix_localizer_and_previous_model() -> None:
    target, image_weight = supervision(alpha=0)
    previous = torch.tensor([2.0, -2]).sigmoid()
    assert_close(target[0, 0, 0], torch.tensor([0.2, 0.1]))  # the localizer's background is the smaller
    assert_close(target[1, 0, 0], torch.tensor([0.5, previous[1]]))  # the previous model's is, at the second pixel
    assert_close(target[:, 1, 0], torch.tensor([0.0, 1]).sigmoid().expand(2, 2))
    assert_close(target[:, 2, 0], torch.tensor([[0.6, 0.2], [0.3, 0.2]]))
    assert target[:, 3].count_nonzero() == 0  # not in either image
    assert image_weight.tolist() == [1, 1]


def test_hard_targets_drop_images_whose_class_wins_no_pixel() -> None:
    target, image_weight = supervision(alpha=1)
    assert target[:, 2, 0].tolist() == [[1, 1], [0, 0]]  # the highest score goes to an absent class: the next best wins
    assert image_weight.tolist() == [1, 0]


def test_alpha_interpolates() -> None:
    (soft, _), (hard, _), (mixed, weight) = supervision(0), supervision(1), supervision(0.3)
    assert_close(mixed[:, 2:], 0.3 * hard[:, 2:] + 0.7 * soft[:, 2:])
    assert weight.tolist() == [1, 1]


def test_pseudo_supervision_reads_no_previous_class_from_the_localizer() -> None:
    z = load("wilson_all_class_supervision")
    scores, previous, labels = z["in.localizer_logits_eval"], z["in.previous_logits"], z["in.image_labels"]
    target, _ = pseudo.pseudo_supervision(scores, previous, labels, 0.5)
    assert_close(target[:, 1:4], previous[:, 1:].sigmoid())


def test_targets_carry_no_gradient_and_leave_inputs_alone() -> None:
    z = load("wilson_default")
    z["in.localizer_logits_eval"].requires_grad_()
    before = {key: value.detach().clone() for key, value in z.items()}
    scores, labels = z["in.localizer_logits_eval"], z["in.image_labels"]
    probabilities = scores.softmax(1)
    kept = probabilities.detach().clone()
    refined = pseudo.pamr(z["in.image01"], probabilities)
    target, image_weight = pseudo.pseudo_supervision(scores, z["in.previous_logits"], labels, 0.5)
    made = [refined, pseudo.keep_labelled(probabilities, labels), pseudo.pseudo_masks(probabilities), target, image_weight]
    assert not any(tensor.requires_grad for tensor in made)
    assert torch.equal(probabilities, kept)
    for key, value in z.items():
        assert torch.equal(value, before[key]), key
