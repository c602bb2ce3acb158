"""The losses of every method, as pure functions of tensors that agree with the papers' public code.

Maps are [B, C, H, W] and channel 0 is background. Previous channels come first, then the channels of the new classes, so
"the previous C_old channels" is always a leading slice. Reduction scales differ between losses (summed over classes here,
averaged over classes there) because the weights the papers publish assume exactly these scales. Every previous output,
image label and pseudo-supervision is a constant: no gradient ever flows into it. Give float32 or float64, not the
half-precision tensors of autocast: sums over a batch of pixels overflow or lose the small terms there.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import VOID


class Mean(Protocol):
    """Turns a sum over what counts, and how much counts, into this process's part of the mean over the global batch.

    With W workers the number of labelled pixels differs from worker to worker, so the mean of the workers' means is not
    the mean. DDP averages gradients over workers; therefore W * total / (sum of weight over all workers + epsilon) gives
    exactly the single-process gradient, and averaging the returned values gives exactly the single-process loss::

        def mean(total, weight, epsilon=0.0):
            weight = weight.clone()
            torch.distributed.all_reduce(weight)
            return world_size * divide(total, weight, epsilon)

    `epsilon` is a part of the published denominator; it belongs to the global batch and is added once, after the sum.
    Losses without a `mean` argument divide by a number that every worker shares (the batch and the map have fixed sizes).
    """

    def __call__(self, total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor: ...


def divide(total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
    """`total` / (`weight` + `epsilon`) for one process; 0, not NaN, where nothing counts (`weight` is a count)."""
    return total / (weight.clamp(min=1) + epsilon)


def cross_entropy(logits: Tensor, target: Tensor, mean: Mean = divide) -> Tensor:
    """-log softmax(logits)[target], mean over labelled pixels.

    `logits` [B, C, H, W]; `target` [B, H, W] integer channels, 255 where unlabelled.
    """
    total = F.cross_entropy(logits, target.long(), ignore_index=VOID, reduction="sum")
    return mean(total, _labelled(target, logits).sum())


def binary_cross_entropy(logits: Tensor, target: Tensor, mean: Mean = divide) -> Tensor:
    """One-against-all cross-entropy, summed over channels, mean over labelled pixels: WILSON's step 0.

    `logits` [B, C, H, W]; `target` [B, H, W] integer channels, 255 where unlabelled. Background is a class like any other.
    """
    pixels = F.binary_cross_entropy_with_logits(
        logits, _one_hot(target, logits), reduction="none"
    ).sum(1)
    labelled = _labelled(target, logits)
    return mean((pixels * labelled).sum(), labelled.sum())


def joint_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    previous_logits: Tensor,
    background: Literal["previous", "mask", "smaller"] = "previous",
) -> Tensor:
    """iCaRL's loss: one-against-all cross-entropy with sigmoid(previous logits) as targets of the previous channels.

    `background` is wanted as the previous model sees it, as the labels do, or the smaller of both. Summed over channels, mean
    over all pixels: the previous model has an opinion on unlabelled pixels too, where no new class is wanted.
    `logits` [B, C, H, W]; `target` [B, H, W], 255 where unlabelled; `previous_logits` [B, C_old, H, W].
    """
    wanted = _one_hot(target, logits)
    previous = previous_logits.detach().sigmoid()
    if background != "previous":
        labelled = (
            wanted[:, 0] if background == "mask" else torch.minimum(wanted[:, 0], previous[:, 0])
        )
        previous[:, 0] = torch.where(target == VOID, previous[:, 0], labelled)
    wanted[:, : previous.shape[1]] = previous
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1).mean()


def unbiased_cross_entropy(
    logits: Tensor, target: Tensor, previous_channels: int, mean: Mean = divide
) -> Tensor:
    """MiB, Eq. 5: cross-entropy in which background means "background or any previous class".

    q(background) = sum_{c < C_old} softmax(logits)_c, q(new class) = softmax(logits)_c; mean over labelled pixels.
    `logits` [B, C, H, W]; `target` [B, H, W], where labels of previous classes count as background, 255 where unlabelled;
    `previous_channels` is C_old, background included.
    """
    background = logits[:, :previous_channels].logsumexp(1, keepdim=True)
    folded = torch.cat(
        [background, logits[:, previous_channels:]], 1
    )  # its softmax is q: both have the same normaliser
    target = target.long()
    shifted = (target - (previous_channels - 1)).clamp(min=0)
    return cross_entropy(folded, torch.where(target == VOID, VOID, shifted), mean)


def distillation(logits: Tensor, previous_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """LwF: cross-entropy of the previous channels' softmax to softmax(alpha * previous logits); mean over pixels and C_old.

    `logits` [B, C, H, W]; `previous_logits` [B, C_old, H, W]; the new channels take no part.
    """
    return _soft_cross_entropy(logits[:, : previous_logits.shape[1]], previous_logits, alpha)


def unbiased_distillation(logits: Tensor, previous_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """MiB, Eq. 7: distillation in which the previous background is "background or any new class".

    p(background) = softmax(logits)_0 + sum of the new classes', p(c) = softmax(logits)_c for previous c;
    -1/C_old sum_c softmax(alpha * previous logits)_c log p(c), mean over pixels. `logits` [B, C, H, W];
    `previous_logits` [B, C_old, H, W]. `alpha` sharpens the previous model only, without a squared-temperature factor.
    """
    previous = previous_logits.shape[1]
    background = torch.cat([logits[:, :1], logits[:, previous:]], 1).logsumexp(1, keepdim=True)
    return _soft_cross_entropy(
        torch.cat([background, logits[:, 1:previous]], 1), previous_logits, alpha
    )


def binary_distillation(logits: Tensor, previous_logits: Tensor) -> Tensor:
    """LwF-MC: binary cross-entropy of the previous channels to sigmoid(previous logits), summed over C_old, mean over pixels.

    `logits` [B, C, H, W]; `previous_logits` [B, C_old, H, W].
    """
    return previous_logits.shape[1] * localization_prior_loss(logits, previous_logits)


def encoder_distillation(features: Tensor, previous_features: Tensor) -> Tensor:
    """Mean squared difference of the encoder's features and the previous encoder's, both [B, D, h, w] (WILSON's, ILT's)."""
    return F.mse_loss(features, previous_features.detach())


@torch.no_grad()
def initialise_from_background(
    weight: Tensor, bias: Tensor, new_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """MiB, Eq. 9: the new classifier starts as background split evenly among background and the new classes.

    `weight` [D, ...] and `bias` [1] are the background's in the previous classifier. Returns the new classes' weight
    [new_classes, D, ...] and bias [new_classes], and the background's own bias [1], which takes the same value:
    bias - log(new_classes + 1).
    """
    shared = bias - torch.log(torch.tensor(new_classes + 1, dtype=bias.dtype, device=bias.device))
    return (
        weight.unsqueeze(0).repeat(new_classes, *[1] * weight.ndim),
        shared.repeat(new_classes),
        shared,
    )


def ngwp_focal_pooling(logits: Tensor, focal: bool = True) -> Tensor:
    """WILSON, Eq. 2: normalised global weighted pooling of the localizer's logits, with a focal penalty on small masks.

    With m = softmax over channels: y_c = sum_i m_ic z_ic / (1 + sum_i m_ic) + (1 - mean_i m_ic)^3 log(0.01 + mean_i m_ic);
    the second term only if `focal`. `logits` [B, C, h, w] -> image scores [B, C], background included.
    """
    masks = logits.softmax(1)
    scores = (masks * logits).sum((2, 3)) / (1.0 + masks.sum((2, 3)))
    if not focal:
        return scores
    size = masks.mean((2, 3))
    return scores + (1 - size) ** 3 * torch.log(0.01 + size)


def attention_pooling(logits: Tensor) -> Tensor:
    """Mean of the localizer's logits weighted by m + 0.01, with m = softmax over channels; [B, C, h, w] -> [B, C]."""
    weights = logits.softmax(1) + 0.01
    return (weights * logits).sum((2, 3)) / weights.sum((2, 3))


def classification_loss(scores: Tensor, image_labels: Tensor, previous_channels: int = 1) -> Tensor:
    """WILSON, Eq. 3: binary cross-entropy of image scores to image labels, mean over images and supervised classes.

    `scores` [B, C] with background; `image_labels` [B, C - 1] of 0 and 1, without it. The classes of the first
    `previous_channels` channels take no part; the default 1 supervises every foreground class.
    """
    wanted = image_labels[:, previous_channels - 1 :].to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores[:, previous_channels:], wanted)


def localization_prior_loss(localizer_logits: Tensor, previous_logits: Tensor) -> Tensor:
    """WILSON, Eq. 4: the localizer's previous channels imitate sigmoid(previous logits); mean over pixels and C_old.

    `localizer_logits` [B, C, h, w]; `previous_logits` [B, C_old, h, w], background included.
    """
    wanted = previous_logits.detach().sigmoid()
    return F.binary_cross_entropy_with_logits(localizer_logits[:, : wanted.shape[1]], wanted)


def semantic_prior_loss(
    localizer_logits: Tensor, previous_logits: Tensor, image_labels: Tensor, similarity: Tensor
) -> Tensor:
    """RaSP's prior (Roy et al., 2023): a new class is likelier where the previous model sees a class that is like it.

    Binary cross-entropy of the new channels to sigmoid(similarity of the new class and the one predicted there), for the
    classes that the image has; mean over images, new classes and pixels, whether the image has the class or not.
    `localizer_logits` [B, C, h, w]; `previous_logits` [B, C_old, h, w]; `image_labels` [B, C - 1]; `similarity`
    [C - C_old, C_old], relative to the new class's similarity to background (column 0 is 1).
    """
    previous = previous_logits.shape[1]
    wanted = similarity[:, previous_logits.argmax(1)].transpose(0, 1).sigmoid()
    pixels = F.binary_cross_entropy_with_logits(
        localizer_logits[:, previous:], wanted, reduction="none"
    )
    return (pixels * image_labels[:, previous - 1 :, None, None]).mean()


def self_supervision_loss(
    localizer_logits: Tensor, pseudo_masks: Tensor, image_labels: Tensor
) -> Tensor:
    """Cross-entropy of the localizer to its own confident masks (Araslanov & Roth, 2020), rare classes weighing more.

    Per pixel of class c the weight is (N - N_c) / (1 + N), with N_c and N the image's pixels of class c and of any class;
    mean over all pixels, assigned or not. An image counts only if its masks hold as many classes as it has labels and
    background; mean over all images, counting or not.
    `localizer_logits` [B, C, h, w]; `pseudo_masks` [B, C, h, w] one-hot, all zero where unassigned
    (`training.pseudo_labels.pseudo_masks`); `image_labels` [B, C - 1].
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
    """WILSON, Eq. 8: binary cross-entropy to soft targets, summed over channels, mean over pixels, weighted mean over images.

    `logits` and `target` [B, C, h, w]; `image_weight` [B] of 0 and 1 (`training.pseudo_labels.pseudo_supervision`). The
    weighted mean divides by sum(image_weight) + 1e-5.
    """
    pixels = F.binary_cross_entropy_with_logits(logits, target.detach(), reduction="none").sum(1)
    weight = image_weight.detach()
    return mean((pixels.mean((1, 2)) * weight).sum(), weight.sum(), epsilon=1e-5)


def _labelled(target: Tensor, like: Tensor) -> Tensor:
    return (target != VOID).to(like.dtype)


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    """[B, H, W] -> [B, C, H, W] in the type of `like`; unlabelled pixels are all zero."""
    channels = torch.arange(like.shape[1], device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) == channels).to(like.dtype)


def _soft_cross_entropy(logits: Tensor, previous_logits: Tensor, alpha: float) -> Tensor:
    wanted = (alpha * previous_logits.detach()).softmax(1)
    return -(wanted * logits.log_softmax(1)).mean()
