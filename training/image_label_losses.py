"""Compute the losses of methods that learn from image labels, as pure functions of tensors.

They are those of WILSON and of the works that it builds on, and agree with the papers' public code.
The conventions are those of `training.losses`. Image labels, previous outputs, pseudo-masks and
pseudo-supervision are constants: no gradient flows into them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import Mean, divide


def ngwp_focal_pooling(logits: Tensor, focal: bool = True) -> Tensor:
    """Return image scores by WILSON's Eq. 2: normalised global weighted pooling (nGWP).

    With z the logits and m = softmax(z) over channels, the score of channel c is
    y_c = sum_i m_ic z_ic / (1 + sum_i m_ic) + (1 - mean_i m_ic)^3 log(0.01 + mean_i m_ic). The
    second term is the focal penalty on small masks.

    Args:
        logits: [B, C, h, w], of the localizer.
        focal: Add the focal penalty.

    Returns:
        Scores [B, C], background included.
    """
    masks = logits.softmax(1)
    scores = (masks * logits).sum((2, 3)) / (1.0 + masks.sum((2, 3)))
    if not focal:
        return scores
    size = masks.mean((2, 3))
    return scores + (1 - size) ** 3 * torch.log(0.01 + size)


def attention_pooling(logits: Tensor) -> Tensor:
    """Return image scores [B, C]: the mean of the logits [B, C, h, w], weighted by attention.

    The weights are softmax(logits) over channels + 0.01.
    """
    weights = logits.softmax(1) + 0.01
    return (weights * logits).sum((2, 3)) / weights.sum((2, 3))


def classification_loss(scores: Tensor, image_labels: Tensor, previous_channels: int = 1) -> Tensor:
    """Return WILSON's Eq. 3: the binary cross-entropy of image scores to image labels.

    It is averaged over images and supervised classes.

    Args:
        scores: [B, C], background included.
        image_labels: [B, C - 1] of 0 and 1, without background.
        previous_channels: The first channels, which are not supervised. The default 1 supervises
            every class but background.
    """
    wanted = image_labels[:, previous_channels - 1 :].to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores[:, previous_channels:], wanted)


def semantic_prior_loss(
    localizer_logits: Tensor, previous_logits: Tensor, image_labels: Tensor, similarity: Tensor
) -> Tensor:
    """Return RaSP's semantic prior (Roy et al., 2023).

    A new class is more likely where the previous model predicts a similar class. The target of a
    new channel is sigmoid(similarity of the new class and the predicted one). The binary
    cross-entropy counts for the classes that the image has. It is averaged over images, new classes
    and pixels, whether the image has the class or not.

    Args:
        localizer_logits: [B, C, h, w].
        previous_logits: [B, C_old, h, w].
        image_labels: [B, C - 1].
        similarity: [C - C_old, C_old], relative to the new class's similarity to background.
            Column 0, background, is 1.
    """
    previous = previous_logits.shape[1]
    wanted = similarity[:, previous_logits.argmax(1)].transpose(0, 1).sigmoid()
    new_logits = localizer_logits[:, previous:]
    pixels = F.binary_cross_entropy_with_logits(new_logits, wanted, reduction="none")
    return (pixels * image_labels[:, previous - 1 :, None, None]).mean()


def self_supervision_loss(
    localizer_logits: Tensor, pseudo_masks: Tensor, image_labels: Tensor
) -> Tensor:
    """Return the cross-entropy of the localizer to its own masks (Araslanov and Roth, 2020).

    A pixel of class c has the weight (N - N_c) / (1 + N). N_c is the number of the image's pixels
    of class c, and N that of any class. Rare classes thus have more weight. An image counts if its
    masks hold as many classes as it has labels, and background. The loss is averaged over all
    images and pixels, whether they count or not.

    Args:
        localizer_logits: [B, C, h, w].
        pseudo_masks: [B, C, h, w], one-hot, and 0 at unassigned pixels
            (`training.pseudo_labels.pseudo_masks`).
        image_labels: [B, C - 1].
    """
    masks = pseudo_masks.detach()
    pixels = masks.sum((2, 3))
    assigned = pixels.sum(1, keepdim=True)
    class_weight = (assigned - pixels) / (1 + assigned)
    complete = (pixels > 0).sum(1) == image_labels.sum(1) + 1
    image_weight = complete.to(pixels.dtype)[:, None] * class_weight
    per_class = (masks * localizer_logits.log_softmax(1)).sum((2, 3))
    return -(image_weight * per_class).sum() / masks[:, 0].numel()


def segmentation_loss(
    logits: Tensor, target: Tensor, image_weight: Tensor, mean: Mean = divide
) -> Tensor:
    """Return WILSON's Eq. 8: the binary cross-entropy to pseudo-supervision.

    It is summed over channels, averaged over pixels, and averaged over images with their weights.
    The last mean divides by sum(image_weight) + 1e-5.

    Args:
        logits: [B, C, h, w].
        target: [B, C, h, w] (`training.pseudo_labels.pseudo_supervision`).
        image_weight: [B] of 0 and 1, from the same function.
        mean: The mean over the global batch.
    """
    pixels = F.binary_cross_entropy_with_logits(logits, target.detach(), reduction="none").sum(1)
    weight = image_weight.detach()
    return mean((pixels.mean((1, 2)) * weight).sum(), weight.sum(), epsilon=1e-5)
