"""Targets that methods make for themselves: WILSON's out of image labels, PLOP's out of what the previous model is sure of.

WILSON makes refined masks for its localizer and soft targets for its model.

A localizer's scores are blurred, so its own targets are first refined with PAMR, which lets scores flow between pixels of
similar colour, and then thresholded until only the pixels it is sure of remain. The segmentation model is taught by
unrefined scores mixed with the previous model's (`pseudo_supervision`). PLOP reads background where the previous model is
surer of a class than at half of the pixels it says the same of (`entropy_labels`). Nothing here carries a gradient. Maps are
[B, C, h, w], channel 0 is background, previous channels come first.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import BACKGROUND, VOID

ENTROPY_BINS = 100
DILATIONS = (1, 2, 4, 8, 12)


@torch.no_grad()
def pamr(
    image: Tensor,
    probabilities: Tensor,
    iterations: int = 10,
    dilations: tuple[int, ...] = DILATIONS,
) -> Tensor:
    """Pixel-adaptive mask refinement (Araslanov & Roth, 2020): every pixel becomes a mean of its look-alike neighbours.

    `iterations` times m_i <- sum_n w_in m_n over the 8 neighbours at each dilation (the border is repeated), where
    w_i = softmax over the neighbours of mean over colours of -|I_i - I_n| / (1e-8 + 0.1 std_i), and std_i is over the
    neighbours and, once per dilation, the pixel itself.
    `image` [B, 3, H, W] of any size, resized here to the map's; shift and scale of each colour cancel out, so
    normalised, [0, 1] and [0, 255] images give the same (but for the 1e-8). `probabilities` [B, C, h, w] -> [B, C, h, w].
    Channels are refined apart, and a channel that is zero everywhere costs nothing: apply `keep_labelled` first.
    """
    size = (probabilities.shape[2], probabilities.shape[3])
    # In float32 the sampling positions alone would cost 1e-5 of a noisy image, and the affinity multiplies that.
    image = F.interpolate(image.double(), size, mode="bilinear", align_corners=True).to(
        probabilities.dtype
    )
    # With the batch innermost, rows of a shifted map stay long contiguous runs: several times faster on small maps.
    occupied = probabilities.amax((0, 2, 3)) > 0
    maps = probabilities[:, occupied].permute(1, 2, 3, 0).contiguous()
    weights = _affinity(image.permute(1, 2, 3, 0).contiguous(), dilations)
    for _ in range(iterations):
        refined = torch.zeros_like(maps)
        for weight, neighbour in zip(weights, _neighbours(maps, dilations), strict=True):
            refined.addcmul_(weight, neighbour)
        maps = refined
    result = torch.zeros_like(probabilities)
    result[:, occupied] = maps.permute(3, 0, 1, 2)
    return result


@torch.no_grad()
def keep_labelled(probabilities: Tensor, image_labels: Tensor) -> Tensor:
    """Zero wherever an image does not have the class: [B, C, h, w], labels [B, C - 1] -> [B, C, h, w]. Background stays."""
    present = F.pad(image_labels.to(probabilities.dtype), (1, 0), value=1.0)
    return probabilities * present[:, :, None, None]


@torch.no_grad()
def pseudo_masks(
    probabilities: Tensor, foreground: float = 0.6, background: float = 0.7, floor: float = 0.2
) -> Tensor:
    """One-hot masks of the pixels a localizer is sure of, [B, C, h, w]; all zero where it is unsure or torn.

    A pixel has class c if its probability exceeds max(floor, share of the image's highest probability of c), where the
    share is `background` for channel 0 and `foreground` for others; a pixel of several classes has none.
    `probabilities` [B, C, h, w], refined (`pamr`) and zero for classes the image lacks (`keep_labelled`, before or after).
    """
    share = torch.full(
        (probabilities.shape[1], 1, 1),
        foreground,
        dtype=probabilities.dtype,
        device=probabilities.device,
    )
    share[0] = background
    threshold = (share * probabilities.amax((2, 3), keepdim=True)).clamp(min=floor)
    sure = probabilities > threshold
    return (sure & (sure.sum(1, keepdim=True) == 1)).to(probabilities.dtype)


@torch.no_grad()
def pseudo_supervision(
    localizer_logits: Tensor,
    previous_logits: Tensor,
    image_labels: Tensor,
    alpha: float,
    background_mix: float | None = None,
) -> tuple[Tensor, Tensor]:
    """WILSON, Eq. 5-7: soft targets of the segmentation model, and which images count.

    q = alpha * [s is the pixel's highest] + (1 - alpha) * s, with s = softmax(localizer_logits) zeroed for classes the
    image lacks. The target is sigmoid(previous_logits) in previous channels and q in new ones; background is the smaller
    of the two, or with `background_mix` b their mixture (1 - b) sigmoid(previous_logits) + b q. An image counts if exactly its
    labelled new classes have any q > 0; only alpha = 1 can fail that, where a labelled class may win no pixel.
    `localizer_logits` [B, C, h, w] of the localizer in evaluation mode; `previous_logits` [B, C_old, h, w];
    `image_labels` [B, C - 1]. Returns target [B, C, h, w] and image weight [B] of 0 and 1.
    """
    previous = previous_logits.shape[1]
    scores = keep_labelled(localizer_logits.softmax(1), image_labels)
    hard = (scores == scores.amax(1, keepdim=True)).to(scores.dtype)
    mixed = alpha * hard + (1 - alpha) * scores
    target = torch.cat([previous_logits.sigmoid(), mixed[:, previous:]], 1)
    if background_mix is None:
        target[:, 0] = torch.minimum(target[:, 0], mixed[:, 0])
    else:
        target[:, 0].lerp_(mixed[:, 0], background_mix)
    found = mixed[:, previous:].sum((2, 3)) > 0
    counts = (found == (image_labels[:, previous - 1 :] > 0)).all(1)
    return target, counts.to(scores.dtype)


@torch.no_grad()
def entropy(previous_logits: Tensor, channels: int) -> Tensor:
    """How unsure the previous model is, as PLOP's public code computes it: [B, C_old, H, W] -> [B, H, W].

    With p = softmax: -mean_c p_c log(p_c + 1e-8) / (log C_old log C). `channels` is C, all that are seen so far.
    """
    probabilities = previous_logits.softmax(1)
    spread = -(probabilities * (probabilities + 1e-8).log()).mean(1)
    return spread / math.log(previous_logits.shape[1] + 1e-8) / math.log(channels)


@torch.no_grad()
def entropy_labels(
    target: Tensor, previous_logits: Tensor, thresholds: Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """PLOP's pseudo-labels, Eq. 8: what the previous model says of background, where its entropy is below a threshold.

    `target` [B, H, W], channels of the new classes, 0 and 255; `thresholds` [C_old], for each class predicted. Returns the
    labels, 255 where the model is not sure enough, and for each image the share of its background that it is sure of [B].
    """
    predicted = previous_logits.argmax(1)
    background = target == BACKGROUND
    sure = background & (entropy(previous_logits, channels) < thresholds[predicted])
    labels = torch.where(background, torch.where(sure, predicted, VOID), target)
    share = sure.sum((1, 2), dtype=previous_logits.dtype) / (
        background.sum((1, 2), dtype=previous_logits.dtype) + 1e-6
    )
    return labels, share


@torch.no_grad()
def entropy_histogram(target: Tensor, previous_logits: Tensor, channels: int) -> Tensor:
    """How many background pixels of each predicted class have which entropy: int64 [C_old, 100], bins of 0..1."""
    background = target == BACKGROUND
    bins = (
        (entropy(previous_logits, channels)[background] * ENTROPY_BINS)
        .long()
        .clamp(max=ENTROPY_BINS - 1)
    )
    cells = previous_logits.argmax(1)[background] * ENTROPY_BINS + bins
    counts = torch.bincount(cells, minlength=previous_logits.shape[1] * ENTROPY_BINS)
    return counts.view(-1, ENTROPY_BINS)


def median_thresholds(histogram: Tensor, least: float = 0.001, published: bool = False) -> Tensor:
    """Median entropy of each class out of its histogram [C_old, bins], and no less than `least` -> float64 [C_old].

    The median is interpolated in the bin that holds it. `published` finds that bin as the public code does: its running
    sum adds the bins' numbers where their counts are meant, so that what comes out is no median.
    """
    medians = [_median(counts, published) for counts in histogram.cpu().tolist()]
    return torch.tensor(
        [max(median, least) for median in medians], dtype=torch.float64, device=histogram.device
    )


def _median(counts: list[int], published: bool) -> float:
    half, before, found, bins = sum(counts) / 2, 0.0, 0, len(counts)
    if not half:
        return 0.0
    for found, count in enumerate(counts):
        if before <= half <= before + count:
            break
        before += found if published else count
    # Published, the bin may be empty: then the median is infinite, or where half is met exactly, not a number.
    within = (torch.tensor(half - before) / counts[found]).item()
    return (found + within) / bins


def _neighbours(maps: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """[C, h, w, B] -> for each dilation and each of the 8 directions, the map seen from that far; the border is repeated."""
    height, width, reach = maps.shape[1], maps.shape[2], max(dilations)
    rows = torch.arange(-reach, height + reach, device=maps.device).clamp(0, height - 1)
    columns = torch.arange(-reach, width + reach, device=maps.device).clamp(0, width - 1)
    padded = maps.index_select(1, rows).index_select(2, columns)
    for dilation in dilations:
        for y, x in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            top, left = reach + dilation * y, reach + dilation * x
            yield padded[:, top : top + height, left : left + width]


def _affinity(colours: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Colours [3, h, w, B] -> weights [neighbours, 1, h, w, B] that sum to 1 over the neighbours of a pixel."""
    difference = torch.stack([neighbour - colours for neighbour in _neighbours(colours, dilations)])
    samples = len(difference) + len(
        dilations
    )  # the pixel itself differs by 0 and counts once per dilation
    variance = (difference.square().sum(0) - difference.sum(0).square() / samples) / (samples - 1)
    spread = variance.clamp(min=0).sqrt()
    return (-difference.abs() / (1e-8 + 0.1 * spread)).mean(1, keepdim=True).softmax(0)
