"""Check PAMR against the papers' code (tests/golden), its formula and hand-made scenes."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.losses import load
from training.pamr import _refine_by_products, _refine_by_shifts, pamr
from training.pseudo_labels import keep_labelled


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_pamr_agrees_with_the_published_code(dtype: torch.dtype, tolerance: float) -> None:
    z = load("wilson_default")
    refined = pamr(z["in.image01"].to(dtype), z["in.localizer_logits_eval"].to(dtype).softmax(1))
    assert refined.dtype == dtype
    assert_close(refined.double(), z["out.pamr"], rtol=0, atol=tolerance)


def scene(images: int = 2, size: int = 6) -> tuple[Tensor, Tensor]:
    """Return images [B, 3, 2 size, 2 size] of noise and probabilities [B, 4, size, size]."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, 2 * size, 2 * size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    logits = torch.randn(images, 4, size, size, generator=generator, dtype=torch.float64)
    return pixels, logits.softmax(1)


def shifts(dilations: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the shifts of a pixel and its 8 neighbours at each dilation."""
    for dilation in dilations:
        for y, x in product((-1, 0, 1), repeat=2):
            yield dilation * y, dilation * x


def clip(index: int) -> int:
    return min(max(index, 0), 3)


def test_pamr_is_its_formula() -> None:
    """On a map smaller than the dilations, nearly every neighbour is a repeated border."""
    pixels, probabilities = scene(images=1, size=4)
    image = torch.nn.functional.interpolate(
        pixels.double(), (4, 4), mode="bilinear", align_corners=True
    )[0].numpy()
    before = probabilities[0].numpy()
    expected = np.zeros((4, 4, 4))
    block = list(shifts((1, 2, 8)))
    for row in range(4):
        for column in range(4):
            cells = [(clip(row + y), clip(column + x)) for y, x in block]
            colours = [image[:, y, x] for y, x in cells]
            deviation = np.std(colours, axis=0, ddof=1)
            own = image[:, row, column]
            likeness = [-np.mean(np.abs(own - c) / (1e-8 + 0.1 * deviation)) for c in colours]
            around = np.array([shift != (0, 0) for shift in block])
            weights = np.where(around, np.exp(likeness), 0)
            values = np.array([before[:, y, x] for y, x in cells])
            expected[:, row, column] = (weights / weights.sum()) @ values
    refined = pamr(pixels, probabilities, iterations=1, dilations=(1, 2, 8))
    assert_close(refined[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dilations", [(1, 2, 8), (1, 2, 4, 8, 12)])
def test_products_with_a_matrix_give_what_shifted_maps_give(dilations: tuple[int, ...]) -> None:
    """A GPU takes the products; here both run on a CPU, also under autocast."""
    pixels, probabilities = scene(images=3, size=5)
    probabilities = keep_labelled(probabilities, torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 1]]))
    image = pixels[:, :, :5, :5].double()
    expected = _refine_by_shifts(image, probabilities, 10, dilations)
    with torch.autocast("cpu", torch.bfloat16):
        found = _refine_by_products(image, probabilities, 10, dilations)
    assert_close(found, expected, rtol=0, atol=1e-14)
    with torch.autocast("cpu", torch.bfloat16):
        found = _refine_by_products(image.float(), probabilities.float(), 10, dilations)
    assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_pamr_keeps_scores_within_a_colour() -> None:
    """Probabilities that leak over the border of a red and a blue half are drawn back behind it."""
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, :8] = image[:, 2, :, 8:] = 1
    leaky = torch.zeros(1, 2, 16, 16)
    leaky[:, 1, :, :10] = 0.9
    leaky[:, 0] = 1 - leaky[:, 1]
    refined = pamr(image, leaky)
    assert refined[0, 1, :, :8].min() > 0.85
    assert refined[0, 1, :, 8:].max() < 0.3


def test_pamr_does_not_depend_on_how_pixels_are_scaled() -> None:
    pixels, probabilities = scene()
    refined = pamr(pixels, probabilities)
    mean = torch.tensor((123.7, 116.3, 103.5)).view(1, 3, 1, 1)
    deviation = torch.tensor((58.4, 57.1, 57.4)).view(1, 3, 1, 1)
    scaled = pamr((pixels.double() - mean) / deviation, probabilities)
    assert_close(scaled, refined, rtol=0, atol=1e-6)


def test_pamr_averages() -> None:
    """Weights are positive and sum to 1, also on a flat image, so the result is probabilities."""
    pixels, probabilities = scene()
    for image in (pixels, torch.zeros_like(pixels)):
        refined = pamr(image, probabilities)
        assert refined.min() > 0
        assert_close(refined.sum(1), torch.ones(2, 6, 6, dtype=torch.float64))


def test_pamr_treats_images_and_channels_apart() -> None:
    pixels, probabilities = scene()
    refined = pamr(pixels, probabilities)
    assert_close(pamr(pixels[1:], probabilities[1:]), refined[1:])
    # No image has class 2, so its channel is skipped.
    labels = torch.tensor([[1, 0, 0], [0, 0, 1]])
    early = pamr(pixels, keep_labelled(probabilities, labels))
    assert_close(early, keep_labelled(refined, labels), rtol=0, atol=1e-15)
