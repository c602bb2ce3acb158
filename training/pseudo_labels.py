"""Compute the targets that methods derive themselves: WILSON's, PLOP's and SSUL's pseudo-labels.

WILSON's localizer has blurred scores. For its own targets, PAMR lets scores flow between pixels of
similar colour (`training.pamr`), and a threshold keeps only confident pixels (`pseudo_masks`). The
targets of its segmentation model are unrefined scores mixed with the previous model's
(`pseudo_supervision`). PLOP labels background pixels where the previous model's prediction has an
entropy below a threshold of its class (`entropy_labels`), and SSUL where its sigmoid is above one
(`confident_classes`).

Nothing here carries a gradient. Maps are [B, C, h, w], channel 0 is background, and the previous
channels come first.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import BACKGROUND, VOID

ENTROPY_BINS = 100  # of entropies in 0..1


@torch.no_grad()
def keep_labelled(probabilities: Tensor, image_labels: Tensor) -> Tensor:
    """Return the probabilities [B, C, h, w] with 0 for classes that an image does not have.

    Background is kept. `image_labels` is [B, C - 1].
    """
    present = F.pad(image_labels.to(probabilities.dtype), (1, 0), value=1.0)
    return probabilities * present[:, :, None, None]


@torch.no_grad()
def pseudo_masks(
    probabilities: Tensor, foreground: float = 0.6, background: float = 0.7, floor: float = 0.2
) -> Tensor:
    """Return one-hot masks of confident pixels, [B, C, h, w]; unassigned pixels are all 0.

    A pixel has class c if its probability exceeds max(floor, share * the image's highest
    probability of c). The share is `background` for channel 0 and `foreground` for the others. A
    pixel of several classes is unassigned.

    Args:
        probabilities: [B, C, h, w], refined by PAMR, and 0 for classes that the image does not
            have (`keep_labelled`).
        foreground: The share for classes.
        background: The share for background.
        floor: The lowest threshold.
    """
    share = torch.full(
        (probabilities.shape[1], 1, 1),
        foreground,
        dtype=probabilities.dtype,
        device=probabilities.device,
    )
    share[0] = background
    threshold = (share * probabilities.amax((2, 3), keepdim=True)).clamp(min=floor)
    confident = probabilities > threshold
    unique = confident.sum(1, keepdim=True) == 1
    return (confident & unique).to(probabilities.dtype)


@torch.no_grad()
def pseudo_supervision(
    localizer_logits: Tensor,
    previous_logits: Tensor,
    image_labels: Tensor,
    alpha: float,
    background_mix: float | None = None,
    yield_to_previous: bool = False,
    new_class_odds: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return WILSON's pseudo-supervision, Eq. 5-7, and which images count.

    With s = softmax(localizer_logits), set to 0 for classes that the image does not have,
    q = alpha * [s is the pixel's highest] + (1 - alpha) * s. The target is sigmoid(previous_logits)
    in previous channels and q in new ones. In background it is the smaller of the two, or with
    `background_mix` b the mixture (1 - b) sigmoid(previous_logits) + b q. In step 0, where there
    are no previous channels, the target is q, background's too. With `yield_to_previous`, the
    target of a new class is q (1 - max sigmoid(previous_logits) over previous classes). With
    `new_class_odds` w, a target t of a new class becomes w t / (1 + (w - 1) t): its odds times w.

    An image counts if exactly its labelled new classes have any q > 0. Only alpha = 1 can violate
    this, because a labelled class may then be the highest at no pixel.

    Args:
        localizer_logits: [B, C, h, w], of the localizer in evaluation mode.
        previous_logits: [B, C_old, h, w]; C_old is 0 in step 0.
        image_labels: [B, C - 1].
        alpha: 1 gives hard targets, 0 soft ones.
        background_mix: Share of the localizer in the target of background.
        yield_to_previous: Lower the targets of new classes where the previous model sees previous
            ones; of no use in step 0.
        new_class_odds: What the odds of a new class's target are multiplied by.

    Returns:
        The target [B, C, h, w] and the image weight [B] of 0 and 1.
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
    if yield_to_previous:
        target[:, previous:] *= 1 - target[:, 1:previous].amax(1, keepdim=True)
    if new_class_odds != 1:
        new = target[:, previous:]
        target[:, previous:] = new_class_odds * new / (1 + (new_class_odds - 1) * new)
    first = max(previous, 1)  # background is no class of an image
    found = mixed[:, first:].sum((2, 3)) > 0
    counts = (found == (image_labels[:, first - 1 :] > 0)).all(1)
    return target, counts.to(scores.dtype)


@torch.no_grad()
def entropy(previous_logits: Tensor, channels: int) -> Tensor:
    """Return the entropy of each pixel's prediction, scaled as in PLOP's public code.

    With p = softmax(previous_logits) it is -mean_c p_c log(p_c + 1e-8) / (log C_old log C). The
    mean over classes, where an entropy is a sum, and the second logarithm keep it below
    1 / (C_old log C): 0.021 for VOC 15-5 and 0.0020 for ADE20K 100-50, while the histogram's bins
    are 0.01 wide. On ADE20K all entropies therefore share the first bin, whose median is taken to
    be at least 0.005, and every background pixel gets a label.

    Args:
        previous_logits: [B, C_old, H, W].
        channels: C, the channels of all classes seen so far.

    Returns:
        [B, H, W].
    """
    probabilities = previous_logits.softmax(1)
    mean = -(probabilities * (probabilities + 1e-8).log()).mean(1)
    return mean / math.log(previous_logits.shape[1] + 1e-8) / math.log(channels)


@torch.no_grad()
def entropy_labels(
    target: Tensor, previous_logits: Tensor, thresholds: Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """Return PLOP's pseudo-labels, Eq. 8, and the share of each image's background that has one.

    A background pixel takes the previous model's prediction as its label where the entropy is below
    the threshold of the predicted class.

    Args:
        target: [B, H, W], channels of the new classes, 0 and 255.
        previous_logits: [B, C_old, H, W].
        thresholds: [C_old], for each predicted channel.
        channels: C, the channels of all classes seen so far.

    Returns:
        The labels [B, H, W], with 255 at the other background pixels, and the shares [B].
    """
    predicted = previous_logits.argmax(1)
    background = target == BACKGROUND
    confident = background & (entropy(previous_logits, channels) < thresholds[predicted])
    labels = torch.where(background, torch.where(confident, predicted, VOID), target)
    dtype = previous_logits.dtype
    labelled = confident.sum((1, 2), dtype=dtype)
    share = labelled / (background.sum((1, 2), dtype=dtype) + 1e-6)
    return labels, share


def unknown_where_salient(target: Tensor, saliency: Tensor, unknown: int) -> Tensor:
    """Return SSUL's labels: background that is salient is unknown.

    Args:
        target: [B, H, W], integer channels, 0 for background and 255 for void.
        saliency: [B, H, W], above 0 where something salient is.
        unknown: The channel of unknown.
    """
    return torch.where((target == BACKGROUND) & (saliency > 0), unknown, target)


@torch.no_grad()
def confident_classes(
    target: Tensor, previous_logits: Tensor, unknown: int, threshold: float
) -> Tensor:
    """Return SSUL's labels with those of the previous model where it is sure of a class.

    A pixel of background or unknown takes the previous model's class if the largest of its
    sigmoids, over all channels, is that class's and at least the threshold.

    Args:
        target: [B, H, W], integer channels, 0 for background and 255 for void.
        previous_logits: [B, C_old + 1, H, W]; background is the first channel, unknown the last.
        unknown: The channel of unknown in `target`.
        threshold: The least probability.
    """
    score, best = previous_logits.sigmoid().max(1)
    is_class = (best != BACKGROUND) & (best != previous_logits.shape[1] - 1)
    free = (target == BACKGROUND) | (target == unknown)
    return torch.where(free & is_class & (score >= threshold), best, target)


@torch.no_grad()
def entropy_histogram(target: Tensor, previous_logits: Tensor, channels: int) -> Tensor:
    """Return how many background pixels have which predicted channel and entropy.

    Args:
        target: [B, H, W], channels of the new classes, 0 and 255.
        previous_logits: [B, C_old, H, W].
        channels: C, the channels of all classes seen so far.

    Returns:
        Counts, int64 [C_old, 100]; the bins divide entropies 0..1.
    """
    background = target == BACKGROUND
    scaled = entropy(previous_logits, channels)[background] * ENTROPY_BINS
    bins = scaled.long().clamp(max=ENTROPY_BINS - 1)
    cells = previous_logits.argmax(1)[background] * ENTROPY_BINS + bins
    counts = torch.bincount(cells, minlength=previous_logits.shape[1] * ENTROPY_BINS)
    return counts.view(-1, ENTROPY_BINS)


def median_thresholds(histogram: Tensor, least: float = 0.001, published: bool = False) -> Tensor:
    """Return a threshold of each class: its median entropy, interpolated in the bin that holds it.

    Within a bin, entropies count as spread evenly. They are not where few bins hold all of them.

    Args:
        histogram: Counts [C_old, bins] (`entropy_histogram`).
        least: A lower bound on the result.
        published: Find the bin as the public code does. Its running sum adds the bins' numbers
            instead of their counts, so the result is not a median.

    Returns:
        float64 [C_old].
    """
    medians = [_median(counts, published) for counts in histogram.cpu().tolist()]
    bounded = [max(median, least) for median in medians]
    return torch.tensor(bounded, dtype=torch.float64, device=histogram.device)


def _median(counts: list[int], published: bool) -> float:
    half = sum(counts) / 2
    if not half:
        return 0.0
    before = 0.0
    found = 0
    for found, count in enumerate(counts):
        if before <= half <= before + count:
            break
        before += found if published else count
    # As published, the bin may be empty. The median is then infinite, or NaN if half is met
    # exactly.
    within = (torch.tensor(half - before) / counts[found]).item()
    return (found + within) / len(counts)
