"""Compute the losses from masks and from the previous model, as pure functions of tensors.

`training.image_label_losses` computes those from image labels. All agree with the papers' public
code. Maps are [B, C, H, W] and channel 0 is background. The previous channels come first, then
those of the new classes. "The previous C_old channels" are therefore always a leading slice,
background included.

Some losses are summed over classes and others averaged, because the papers' weights assume these
scales. Previous outputs are constants: no gradient flows into them. Inputs must be float32 or
float64. In the half precision of autocast, sums over a batch of pixels overflow or lose their small
terms.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import BACKGROUND, VOID
from training.fused_losses import binary_cross_entropy_sum, mean_square, unbiased_sums


class Mean(Protocol):
    """Turns a sum and a count of this worker into its part of the mean over the global batch.

    The number of labelled pixels differs from worker to worker. The mean of the workers' means is
    therefore not the mean of the batch. DDP averages gradients over W workers, so each worker
    returns W * total / (weight of all workers + epsilon). The average over the workers is then
    exactly the loss, and the gradient, of a single process::

        def mean(total, weight, epsilon=0.0):
            weight = weight.clone()
            torch.distributed.all_reduce(weight)
            return world_size * divide(total, weight, epsilon)

    `epsilon` is a constant in the published denominator. It is added once, after the sum over the
    workers. A loss without a `mean` argument divides by a number that is the same on all workers,
    because batch and map have fixed sizes.
    """

    def __call__(self, total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor: ...


def divide(total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return total / (weight + epsilon), the mean of a single worker.

    `weight` is a count. Where it is 0 the result is 0, not NaN.
    """
    return total / (weight.clamp(min=1) + epsilon)


def cross_entropy(logits: Tensor, target: Tensor, mean: Mean = divide) -> Tensor:
    """Return -log softmax(logits)[target], averaged over labelled pixels.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; 255 is unlabelled.
        mean: The mean over the global batch.
    """
    total = F.cross_entropy(logits, target.long(), ignore_index=VOID, reduction="sum")
    return mean(total, _labelled(target, logits).sum())


def binary_cross_entropy(logits: Tensor, target: Tensor, mean: Mean = divide) -> Tensor:
    """Return the binary cross-entropy of each channel against all others: WILSON's step 0.

    It is summed over channels and averaged over labelled pixels. Background is a class like any
    other.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; 255 is unlabelled.
        mean: The mean over the global batch.
    """
    total = binary_cross_entropy_sum(logits, target)
    return mean(total, _labelled(target, logits).sum())


def joint_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    previous_logits: Tensor,
    background: Literal["previous", "mask", "smaller"] = "previous",
) -> Tensor:
    """Return iCaRL's loss: binary cross-entropy to masks in new channels, to sigmoids in others.

    The target of a previous channel is sigmoid(previous logits). The loss is summed over channels
    and averaged over all pixels. At unlabelled pixels the previous model's sigmoid is the target of
    background, and 0 that of new classes.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; 255 is unlabelled.
        previous_logits: [B, C_old, H, W].
        background: Takes the target of background from the previous model, from the mask, or from
            whichever of both is smaller.
    """
    wanted = _one_hot(target, logits)
    previous = previous_logits.detach().sigmoid()
    if background != "previous":
        labelled = wanted[:, 0]
        if background == "smaller":
            labelled = torch.minimum(labelled, previous[:, 0])
        previous[:, 0] = torch.where(target == VOID, previous[:, 0], labelled)
    wanted[:, : previous.shape[1]] = previous
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1).mean()


def unbiased_cross_entropy(
    logits: Tensor, target: Tensor, previous_channels: int, mean: Mean = divide
) -> Tensor:
    """Return MiB's unbiased cross-entropy, Eq. 5.

    Background means "background or any previous class":
    q(background) = sum_{c < C_old} softmax(logits)_c, and q(c) = softmax(logits)_c for new c. The
    loss -log q(target) is averaged over labelled pixels.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; previous classes count as background, 255 is
            unlabelled.
        previous_channels: C_old, background included.
        mean: The mean over the global batch.
    """
    background = logits[:, :previous_channels].logsumexp(1, keepdim=True)
    # The softmax of the folded logits is q, because both have the same normaliser.
    folded = torch.cat([background, logits[:, previous_channels:]], 1)
    target = target.long()
    shifted = (target - (previous_channels - 1)).clamp(min=0)
    return cross_entropy(folded, torch.where(target == VOID, VOID, shifted), mean)


def memory_cross_entropy(
    logits: Tensor, target: Tensor, previous_channels: int, mean: Mean = divide
) -> Tensor:
    """Return MiB-AugM's cross-entropy on kept images, the mirror image of the unbiased one.

    Masks of earlier steps do not name the new classes, so background means "background or any new
    class": q(background) = softmax(logits)_0 + sum of the new classes' softmax, and q(c) =
    softmax(logits)_c for previous c. The loss -log q(target) is averaged over labelled pixels.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; new classes count as background, 255 is unlabelled.
        previous_channels: C_old, background included.
        mean: The mean over the global batch.
    """
    target = target.long()
    is_new = (target >= previous_channels) & (target != VOID)
    folded = _fold_new_classes(logits, previous_channels)
    return cross_entropy(folded, torch.where(is_new, BACKGROUND, target), mean)


def distillation(logits: Tensor, previous_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """Return LwF's distillation: the cross-entropy to the previous model's softmax.

    The target is softmax(alpha * previous logits). The prediction is the softmax of the previous
    channels alone. The loss is averaged over pixels and over C_old.

    Args:
        logits: [B, C, H, W].
        previous_logits: [B, C_old, H, W].
        alpha: An inverse temperature of the previous model.
    """
    return _soft_cross_entropy(logits[:, : previous_logits.shape[1]], previous_logits, alpha)


def unbiased_distillation(logits: Tensor, previous_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """Return MiB's unbiased distillation, Eq. 7.

    The previous model's background means "background or any new class": p(background) =
    softmax(logits)_0 + sum of the new classes' softmax, and p(c) = softmax(logits)_c for previous
    c. The loss is -1/C_old sum_c softmax(alpha * previous logits)_c log p(c), averaged over pixels.

    Args:
        logits: [B, C, H, W].
        previous_logits: [B, C_old, H, W].
        alpha: An inverse temperature of the previous model, without the usual factor of the squared
            temperature.
    """
    folded = _fold_new_classes(logits, previous_logits.shape[1])
    return _soft_cross_entropy(folded, previous_logits, alpha)


def unbiased_losses(
    logits: Tensor,
    target: Tensor,
    previous_logits: Tensor,
    alpha: float = 1.0,
    mean: Mean = divide,
) -> tuple[Tensor, Tensor]:
    """Return `unbiased_cross_entropy` and `unbiased_distillation`; faster than one by one."""
    hard, soft = unbiased_sums(logits, target, previous_logits, alpha)
    return mean(hard, _labelled(target, logits).sum()), soft / previous_logits.numel()


def binary_distillation(logits: Tensor, previous_logits: Tensor) -> Tensor:
    """Return LwF-MC's distillation: the binary cross-entropy to sigmoid(previous logits).

    It is summed over C_old and averaged over pixels.

    Args:
        logits: [B, C, H, W].
        previous_logits: [B, C_old, H, W].
    """
    return previous_logits.shape[1] * localization_prior_loss(logits, previous_logits)


def encoder_distillation(features: Tensor, previous_features: Tensor) -> Tensor:
    """Return the mean squared difference of two encoders' features [B, D, h, w] (WILSON, ILT).

    Features may have half precision; their differences are taken in float32.
    """
    return mean_square(features, previous_features.detach())


@torch.no_grad()
def initialise_from_background(
    weight: Tensor, bias: Tensor, new_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return MiB's initial classifier, which shares the background's probability equally.

    Background and each new class get the old background's weights, and the bias bias -
    log(new_classes + 1). MiB writes |C^t| for new_classes + 1, since C^t includes background.

    Args:
        weight: [D, ...], the background's weights in the previous classifier.
        bias: [1], its bias.
        new_classes: Number of new classes.

    Returns:
        The new classes' weights [new_classes, D, ...] and biases [new_classes], and the
        background's bias [1].
    """
    shared = bias - torch.log(torch.tensor(new_classes + 1, dtype=bias.dtype, device=bias.device))
    repeated = weight.unsqueeze(0).repeat(new_classes, *[1] * weight.ndim)
    return repeated, shared.repeat(new_classes), shared


def localization_prior_loss(localizer_logits: Tensor, previous_logits: Tensor) -> Tensor:
    """Return WILSON's Eq. 4: the localizer's previous channels learn sigmoid(previous logits).

    The binary cross-entropy is averaged over pixels and over C_old.

    Args:
        localizer_logits: [B, C, h, w].
        previous_logits: [B, C_old, h, w].
    """
    wanted = previous_logits.detach().sigmoid()
    return F.binary_cross_entropy_with_logits(localizer_logits[:, : wanted.shape[1]], wanted)


def _fold_new_classes(logits: Tensor, previous: int) -> Tensor:
    """Return logits [B, previous, H, W] whose background has the new classes' probability, too."""
    background = torch.cat([logits[:, :1], logits[:, previous:]], 1).logsumexp(1, keepdim=True)
    return torch.cat([background, logits[:, 1:previous]], 1)


def _labelled(target: Tensor, like: Tensor) -> Tensor:
    """Return 1 at labelled pixels and 0 at others, in the type of `like`."""
    return (target != VOID).to(like.dtype)


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    """Return [B, H, W] as [B, C, H, W] in the type of `like`; unlabelled pixels are all 0."""
    channels = torch.arange(like.shape[1], device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) == channels).to(like.dtype)


def _soft_cross_entropy(logits: Tensor, previous_logits: Tensor, alpha: float) -> Tensor:
    wanted = (alpha * previous_logits.detach()).softmax(1)
    return -(wanted * logits.log_softmax(1)).mean()
