"""Refine a localizer's maps by PAMR, pixel-adaptive mask refinement.

Araslanov and Roth, CVPR 2020. Scores flow between neighbouring pixels of similar colour.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12)  # cells of the map
# A matrix of affinities has the square of the map's cells as numbers: 67 MB an image for 64 x 64
# cells, and 275 GB for 512 x 512.
MOST_CELLS_OF_MATRIX = 64 * 64
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@torch.no_grad()
def pamr(
    image: Tensor,
    probabilities: Tensor,
    iterations: int = 10,
    dilations: tuple[int, ...] = DILATIONS,
) -> Tensor:
    """Refine probabilities by PAMR, pixel-adaptive mask refinement (Araslanov and Roth, 2020).

    Each iteration replaces m_i by sum_n w_in m_n over the 8 neighbours at each dilation, with the
    border repeated. The weights w_i are the softmax over the neighbours of the mean over colours of
    -|I_i - I_n| / (1e-8 + 0.1 std_i). std_i is taken over the neighbours and, once per dilation,
    the pixel itself.

    Args:
        image: [B, 3, H, W] of any size; it is resized to the map's. Shift and scale of a colour
            cancel out but for the 1e-8, so bytes and normalised images give the same.
        probabilities: [B, C, h, w]. Channels do not influence each other. On a CPU a channel that
            is zero everywhere costs nothing, so call `training.pseudo_labels.keep_labelled` first.
        iterations: How often the map is averaged.
        dilations: Distances of the neighbours, in cells of the map.

    Returns:
        [B, C, h, w]. The weights of a pixel sum to 1.
    """
    size = (probabilities.shape[2], probabilities.shape[3])
    # In float32 the sampling positions alone have an error of 1e-5 of a noisy image, which the
    # affinity amplifies.
    image = F.interpolate(image.double(), size, mode="bilinear", align_corners=True)
    image = image.to(probabilities.dtype)
    if probabilities.device.type != "cpu":
        # A GPU would be idle in hundreds of small kernels.
        small = size[0] * size[1] <= MOST_CELLS_OF_MATRIX
        refine = _refine_by_products if small else _refine_by_shifts
        return refine(image, probabilities, iterations, dilations)
    # A GPU would wait for the number of occupied maps.
    occupied = probabilities.amax((0, 2, 3)) > 0
    result = torch.zeros_like(probabilities)
    result[:, occupied] = _refine_by_shifts(
        image, probabilities[:, occupied], iterations, dilations
    )
    return result


def _refine_by_shifts(
    image: Tensor, probabilities: Tensor, iterations: int, dilations: tuple[int, ...]
) -> Tensor:
    """Refine by weighted sums of shifted maps."""
    # With the batch as the innermost dimension, rows of a shifted map stay long contiguous runs.
    # This is several times faster on small maps.
    maps = probabilities.permute(1, 2, 3, 0).contiguous()
    weights = _affinity(image.permute(1, 2, 3, 0).contiguous(), dilations).unbind()
    padded = _pad(maps, max(dilations))
    # Views of one buffer, made once.
    neighbours = list(_shifts(padded, dilations))
    for _ in range(iterations):
        maps.zero_()
        for weight, neighbour in zip(weights, neighbours, strict=True):
            maps.addcmul_(weight, neighbour)
        padded.copy_(_pad(maps, max(dilations)))
    return maps.permute(3, 0, 1, 2)


def _refine_by_products(
    image: Tensor, probabilities: Tensor, iterations: int, dilations: tuple[int, ...]
) -> Tensor:
    """Refine by products with one matrix per image, which holds all weights: B (h w)^2 numbers."""
    height, width = probabilities.shape[2:]
    cells = height * width
    weights = _affinity(image.permute(1, 2, 3, 0).contiguous(), dilations).reshape(
        -1, cells, len(image)
    )
    numbers = torch.arange(cells, device=image.device).view(1, height, width, 1)
    matrix = probabilities.new_zeros(len(image), cells, cells)
    # At the border several neighbours are one cell. One direction at a time, no two additions
    # meet, so their order is fixed.
    for weight, neighbour in zip(weights, _neighbours(numbers, dilations), strict=True):
        columns = neighbour.reshape(1, cells, 1).expand(len(image), -1, -1)
        matrix.scatter_add_(2, columns, weight.T[:, :, None])
    maps = probabilities.flatten(2).transpose(1, 2).contiguous()
    refined = torch.empty_like(maps)
    for _ in range(iterations):
        # Autocast, which would round the weights to half precision, leaves `out=` alone.
        torch.bmm(matrix, maps, out=refined)
        maps, refined = refined, maps
    return maps.transpose(1, 2).reshape_as(probabilities)


def _neighbours(maps: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield the map [C, h, w, B] shifted in each direction by each dilation; borders repeat."""
    return _shifts(_pad(maps, max(dilations)), dilations)


def _pad(maps: Tensor, reach: int) -> Tensor:
    """Return the map [C, h, w, B] with its border repeated: [C, h + 2 reach, w + 2 reach, B]."""
    height, width = maps.shape[1:3]
    rows = torch.arange(-reach, height + reach, device=maps.device).clamp(0, height - 1)
    columns = torch.arange(-reach, width + reach, device=maps.device).clamp(0, width - 1)
    return maps.index_select(1, rows).index_select(2, columns)


def _shifts(padded: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield views of a map that `_pad` has padded by the largest of the dilations."""
    reach = max(dilations)
    height, width = (size - 2 * reach for size in padded.shape[1:3])
    for dilation in dilations:
        for y, x in DIRECTIONS:
            top = reach + dilation * y
            left = reach + dilation * x
            yield padded[:, top : top + height, left : left + width]


def _affinity(colours: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Return weights [neighbours, 1, h, w, B] that sum to 1, for colours [3, h, w, B]."""
    difference = torch.stack(list(_neighbours(colours, dilations))).sub_(colours)
    # The pixel itself, whose difference is 0, counts once per dilation.
    samples = len(difference) + len(dilations)
    variance = (difference.square().sum(0) - difference.sum(0).square() / samples) / (samples - 1)
    deviation = variance.clamp(min=0).sqrt()
    return (-difference.abs() / (1e-8 + 0.1 * deviation)).mean(1, keepdim=True).softmax(0)
