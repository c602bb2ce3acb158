"""Compute the losses of the published code as it computes them, for `benchmarks.peer`.

They are those of `training.losses`, `image_label_losses`, `pseudo_labels` and `pamr`, written out a
second time as the papers' public loops do it: one-hot masks, log-softmaxes of whole tensors,
convolutions with fixed kernels for PAMR, on all channels. Maps are [B, C, h, w] with background and
the previous classes first, labels are [B, C - 1].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.segmenter import IMAGENET_MEAN, IMAGENET_STD

VOID = 255
DILATIONS = (1, 2, 4, 8, 12)


def one_hot_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Return WILSON's step 0: binary cross-entropy to one-hot masks, at image resolution."""
    known = masks != VOID
    wanted = F.one_hot(masks * known, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
    return (loss * known).sum() / known.sum()


def unbiased_cross_entropy(logits: Tensor, masks: Tensor, previous: int) -> Tensor:
    """Return MiB's cross-entropy, whose background is any previous class."""
    everything = logits.logsumexp(1)
    outputs = torch.zeros_like(logits)
    outputs[:, 0] = logits[:, :previous].logsumexp(1) - everything
    outputs[:, previous:] = logits[:, previous:] - everything.unsqueeze(1)
    masks = masks.clone()
    masks[masks < previous] = 0
    return F.nll_loss(outputs, masks, ignore_index=VOID)


def unbiased_distillation(logits: Tensor, previous_logits: Tensor) -> Tensor:
    """Return MiB's distillation, whose background is any new class."""
    previous = previous_logits.shape[1]
    everything = logits.logsumexp(1)
    background = [0, *range(previous, logits.shape[1])]
    background_log = logits[:, background].logsumexp(1) - everything
    classes_log = logits[:, 1:previous] - everything.unsqueeze(1)
    wanted = previous_logits.softmax(1)
    loss = wanted[:, 0] * background_log + (wanted[:, 1:] * classes_log).sum(1)
    return -(loss / previous).mean()


def classification(scores: Tensor, labels: Tensor, previous: int) -> Tensor:
    """Return WILSON's Eq. 2 and 3: nGWP with the focal penalty, and image labels."""
    batch, channels = scores.shape[:2]
    maps = scores.view(batch, channels, -1)
    masks = maps.softmax(1)
    pooled = (maps * masks).sum(-1) / (1.0 + masks.sum(-1))
    size = masks.mean(-1)
    pooled = pooled + torch.pow(1 - size, 3) * torch.log(0.01 + size)
    wanted = labels[:, previous - 1 :].to(scores.dtype)
    return F.binary_cross_entropy_with_logits(pooled[:, previous:], wanted)


def prior(scores: Tensor, previous_logits: Tensor) -> Tensor:
    """Return WILSON's Eq. 4: the localizer learns the previous model's sigmoids."""
    previous = previous_logits.shape[1]
    return F.binary_cross_entropy_with_logits(scores[:, :previous], previous_logits.sigmoid())


def self_supervision(scores: Tensor, pseudo: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy to the localizer's masks, with weights of classes and images."""
    masks = pseudo.argmax(1)
    masks[pseudo.sum(1) == 0] = VOID
    loss = F.cross_entropy(scores, masks, ignore_index=VOID, reduction="none")
    pixels = pseudo.flatten(2).sum(-1)
    total = pixels.sum(-1, keepdim=True)
    class_weight = (total - pixels) / (1 + total)
    pixel_weight = (pseudo * class_weight[:, :, None, None]).sum(1)
    complete = (pixels > 0).sum(-1) == labels.sum(-1) + 1
    return (complete * (loss * pixel_weight).mean((1, 2))).mean()


def segmentation(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return WILSON's Eq. 8: binary cross-entropy to the pseudo-supervision."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss.sum(1).mean((1, 2)) * counts).sum() / (counts.sum() + 1e-5)


def confident_masks(images: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Return the localizer's own masks, one-hot, from normalised images and its scores."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, dtype=images.dtype, device=images.device)[:, None, None]
    small = F.interpolate(
        images * std + mean, scores.shape[2:], mode="bilinear", align_corners=True
    )
    confidence = pamr(small, scores.softmax(1))
    confidence[:, 1:] *= labels[:, :, None, None]
    highest = confidence.flatten(2).max(-1)[0][:, :, None, None]
    share = torch.full_like(highest, 0.6)
    share[:, 0] = 0.7
    masks = (confidence > torch.clamp(share * highest, min=0.2)).to(scores.dtype)
    ambiguous = masks.sum(1, keepdim=True) > 1
    return (~ambiguous) * masks


def pseudo_supervision(
    scores: Tensor, previous_logits: Tensor, labels: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return WILSON's Eq. 5 to 7, the target and which images count."""
    previous = previous_logits.shape[1]
    soft = scores.softmax(1)
    soft[:, 1:] *= labels[:, :, None, None]
    hard = (soft == soft.max(1, keepdim=True)[0]).to(soft.dtype)
    mixed = alpha * hard + (1 - alpha) * soft
    old = previous_logits.sigmoid()
    target = torch.cat([old, mixed[:, previous:]], dim=1)
    target[:, 0] = torch.min(old[:, 0], mixed[:, 0])
    found = mixed[:, previous:].sum((2, 3)) > 0
    counts = (found == labels[:, previous - 1 :].bool()).all(1)
    return target, counts.to(scores.dtype)


def pamr(images: Tensor, masks: Tensor, iterations: int = 10) -> Tensor:
    """Refine masks by PAMR (Araslanov and Roth, 2020), by convolutions with fixed kernels.

    Args:
        images: [B, 3, h, w], at the masks' size.
        masks: [B, C, h, w].
        iterations: How often the masks are averaged.
    """
    around = neighbours(images)
    samples = torch.cat([around, images.unsqueeze(2).repeat(1, 1, len(DILATIONS), 1, 1)], dim=2)
    deviation = samples.std(2, keepdim=True)
    distance = -torch.abs(images.unsqueeze(2) - around) / (1e-8 + 0.1 * deviation)
    weights = distance.mean(1, keepdim=True).softmax(2)
    for _ in range(iterations):
        masks = (neighbours(masks) * weights).sum(2)
    return masks


def neighbours(maps: Tensor) -> Tensor:
    """Return each pixel's 8 neighbours at each dilation, [B, C, 40, h, w]; borders repeat."""
    batch, channels, height, width = maps.shape
    kernel = torch.zeros(8, 1, 3, 3, dtype=maps.dtype, device=maps.device)
    for number, place in enumerate((0, 1, 2, 3, 5, 6, 7, 8)):
        kernel[number, 0, place // 3, place % 3] = 1
    flat = maps.reshape(batch * channels, 1, height, width)
    found = []
    for dilation in DILATIONS:
        padded = F.pad(flat, [dilation] * 4, mode="replicate")
        found.append(F.conv2d(padded, kernel, dilation=dilation))
    return torch.cat(found, dim=1).view(batch, channels, -1, height, width)
