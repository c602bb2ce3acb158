"""Measure how far a classifier prefers the classes that it learned last, and correct it.

On pixels of previous classes, a model that has forgotten them is unsure. A biased model prefers the
new classes whatever it sees. The gap between the logits distinguishes the two. Subtracting the gap
afterwards shows how much of the forgetting the bias explains, because what comes back was never
lost.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.config import Document
from training.models.segmenter import Segmenter


class ClassifierWeights(Document):
    """Norm and bias of each output channel, background first."""

    norms: tuple[float, ...]  # |w_c|
    biases: tuple[float, ...]  # b_c


class LogitGap(Document):
    """Mean differences of logits over the pixels of previous classes.

    z_c is the logit of class c; P is the set of previous classes without background, and N that of
    new classes.
    """

    new_minus_previous: float  # mean of max_N z - max_P z
    background_minus_previous: float  # mean of z_background - max_P z
    pixels: int


def classifier_weights(model: Segmenter) -> ClassifierWeights:
    """Return |w_c| and b_c of every channel, in channel order."""
    weight = torch.cat([layer.weight.flatten(1) for layer in model.last_layers])
    bias = torch.cat([layer.get_parameter("bias") for layer in model.last_layers])
    return ClassifierWeights(norms=tuple(weight.norm(dim=1).tolist()), biases=tuple(bias.tolist()))


def logit_gap(batches: Iterable[tuple[Tensor, Tensor]], previous_channels: int) -> LogitGap | None:
    """Measure the gaps on all pixels of a previous class.

    Args:
        batches: Logits [B, C, H, W], and truth [B, H, W] in channels with 255 for void.
        previous_channels: Number of channels of background and the previous classes.

    Returns:
        The mean gaps; None when there is no such pixel.

    Raises:
        ValueError: The model has no new class.
    """
    total = torch.zeros(2, dtype=torch.float64)
    pixels = 0
    for logits, truth in batches:
        if logits.shape[1] <= previous_channels:
            raise ValueError("a model without new classes has no gap to them")
        of_previous = (truth > 0) & (truth < previous_channels)
        selected = logits.permute(0, 2, 3, 1)[of_previous].double()  # [n, C]
        previous = selected[:, 1:previous_channels].amax(1)
        new = selected[:, previous_channels:].amax(1)
        gaps = [(new - previous).sum(), (selected[:, 0] - previous).sum()]
        total += torch.stack(gaps).cpu()
        pixels += len(selected)
    if not pixels:
        return None
    new_gap, background_gap = (total / pixels).tolist()
    return LogitGap(
        new_minus_previous=new_gap, background_minus_previous=background_gap, pixels=pixels
    )


def correct_logits(
    logits: Tensor, previous_channels: int, gap: LogitGap, background: bool = False
) -> Tensor:
    """Lower the logits of new classes by their gap. A negative gap is no bias to correct.

    Args:
        logits: [B, C, H, W].
        previous_channels: Number of channels of background and the previous classes.
        gap: What `logit_gap` measured.
        background: Whether background's logit is lowered by its own gap, too.

    Returns:
        The corrected logits [B, C, H, W]; `logits` itself does not change.
    """
    lowered = logits.clone()
    lowered[:, previous_channels:] -= max(gap.new_minus_previous, 0.0)
    if background:
        lowered[:, 0] -= max(gap.background_minus_previous, 0.0)
    return lowered
