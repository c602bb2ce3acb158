"""Compute losses over all pixels of a batch with gradients written by hand.

Automatic differentiation would keep several maps of the size of the logits at image resolution, and
read and write each of them again. These functions keep one. `training.losses` defines what they
compute, and divides their sums by the batch's counts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import VOID

# Beyond it softplus(x) equals x in float64.
LINEAR = 40.0


def binary_cross_entropy_sum(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy to one-hot masks, summed over channels and labelled pixels.

    For a pixel of channel t it is sum_c softplus(z_c) - z_t.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; 255 is unlabelled.
    """
    return _BinaryCrossEntropy.apply(logits, target.long())  # pyright: ignore[reportReturnType]


def unbiased_sums(
    logits: Tensor, target: Tensor, previous_logits: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return the sums of both of MiB's losses by one exponential of the logits.

    Args:
        logits: [B, C, H, W].
        target: [B, H, W], integer channels; previous classes count as background, 255 is
            unlabelled.
        previous_logits: [B, C_old, H, W] with C_old > 1.
        alpha: An inverse temperature of the previous model.

    Returns:
        The unbiased cross-entropy, summed over labelled pixels, and the unbiased distillation,
        summed over all pixels and previous channels.
    """
    return _UnbiasedSums.apply(  # pyright: ignore[reportReturnType]
        logits, target.long(), (alpha * previous_logits.detach()).softmax(1)
    )


def mean_square(features: Tensor, constant: Tensor) -> Tensor:
    """Return the mean squared difference of tensors of any precision; the second is a constant.

    Nothing is kept in float32 that is given in half precision.
    """
    if features.dtype in (torch.float32, torch.float64):
        return F.mse_loss(features, constant)
    return _MeanSquare.apply(features, constant)  # pyright: ignore[reportReturnType]


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, constant: Tensor) -> Tensor:
        ctx.save_for_backward(features, constant)
        return (features - constant.float()).square().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, constant = ctx.saved_tensors
        difference = features - constant.float()
        return (difference * (2 / features.numel() * gradients[0])).to(features.dtype), None


class _BinaryCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        labelled = (target != VOID).to(logits.dtype)
        channel = target.masked_fill(target == VOID, 0)[:, None]
        ctx.save_for_backward(logits, labelled, channel)
        pixels = F.softplus(logits, threshold=LINEAR).sum(1)
        return ((pixels - logits.gather(1, channel)[:, 0]) * labelled).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, labelled, channel = ctx.saved_tensors
        scale = (gradients[0] * labelled)[:, None]
        result = logits.sigmoid().mul_(scale)
        return result.scatter_add_(1, channel, -scale), None


class _UnbiasedSums(torch.autograd.Function):
    """The channels are three groups: background b, the other previous ones r, the new ones n.

    With L_x = log sum exp over the group x, and L_br, L_bn, L those of unions and of all channels,
    the losses of a pixel with target t and previous probabilities w are

        cross-entropy = L - L_br if t is background or previous, else L - z_t
        distillation = L - w_b L_bn - sum_r w_r z_r

    Exponentials are taken relative to the largest logit of the group, so that none vanishes.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        previous = wanted.shape[1]
        background = logits[:, 0]
        largest_rest = logits[:, 1:previous].amax(1)
        largest_new = logits[:, previous:].amax(1)
        exponentials = torch.empty_like(logits)
        exponentials[:, 0] = 0
        _subtract(logits[:, 1:previous], largest_rest, exponentials[:, 1:previous])
        _subtract(logits[:, previous:], largest_new, exponentials[:, previous:])
        exponentials.exp_()
        rest = largest_rest + exponentials[:, 1:previous].sum(1).log_()
        new = largest_new + exponentials[:, previous:].sum(1).log_()
        old = _log_add_exp(background, rest)
        foreground = _log_add_exp(background, new)
        everything = _log_add_exp(old, new)
        labelled = (target != VOID).to(logits.dtype)
        is_new = (target >= previous).to(logits.dtype) * labelled
        channel = (target * is_new.long())[:, None]
        chosen = torch.lerp(old, logits.gather(1, channel)[:, 0], is_new)
        cross_entropy = ((everything - chosen) * labelled).sum()
        kept = (wanted[:, 1:] * logits[:, 1:previous]).sum(1)
        distillation = (everything - wanted[:, 0] * foreground - kept).sum()
        maps = (background, largest_rest, largest_new, old, foreground, everything)
        ctx.save_for_backward(exponentials, wanted, *maps, labelled, is_new, channel)
        return cross_entropy, distillation

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        exponentials, wanted, *maps, labelled, is_new, channel = ctx.saved_tensors
        background, rest, new, old, foreground, everything = maps
        previous = wanted.shape[1]
        hard = gradients[0] * labelled
        soft = gradients[1]
        # What the exponential of a channel is multiplied with, by the sums that it is part of.
        both = hard + soft
        as_old = hard * (1 - is_new)
        as_background = soft * wanted[:, 0]
        result = torch.empty_like(exponentials)
        share = both * (background - everything).exp_() - as_old * (background - old).exp_()
        result[:, 0] = share - as_background * (background - foreground).exp_()
        share = both * (rest - everything).exp_() - as_old * (rest - old).exp_()
        torch.mul(exponentials[:, 1:previous], share[:, None], out=result[:, 1:previous])
        result[:, 1:previous] -= wanted[:, 1:] * soft
        share = both * (new - everything).exp_() - as_background * (new - foreground).exp_()
        torch.mul(exponentials[:, previous:], share[:, None], out=result[:, previous:])
        result.scatter_add_(1, channel, (-hard * is_new)[:, None])
        return result, None, None


def _subtract(logits: Tensor, largest: Tensor, out: Tensor) -> None:
    torch.sub(logits, largest[:, None], out=out)


def _log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    """Return log(exp(a) + exp(b)); faster than torch.logaddexp."""
    return b + F.softplus(a - b, threshold=LINEAR)
