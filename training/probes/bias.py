"""How much a classifier leans towards the classes it learned last: its weights, its logits, and what correcting them gives.

On pixels of previous classes a model that has merely forgotten is unsure; a biased one prefers the new classes whatever it
sees. The gap between their logits tells the two apart, and subtracting it afterwards says how much of the forgetting the bias
explains: what comes back was never lost.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.config import Document
from training.models.segmenter import Segmenter


class ClassifierWeights(Document):
    """Of each output channel, background first: the length of its weight vector, and its bias."""

    norms: tuple[float, ...]
    biases: tuple[float, ...]


class LogitGap(Document):
    """Means over the pixels of previous classes."""

    new_minus_previous: float  # highest logit of a new class, less the highest of a previous one
    background_minus_previous: float  # logit of background, less the highest of a previous class
    pixels: int


def classifier_weights(model: Segmenter) -> ClassifierWeights:
    """|w_c| and b_c of every channel, in channel order."""
    weight = torch.cat([classifier.weight.flatten(1) for classifier in model.classifiers])  # pyright: ignore
    bias = torch.cat([classifier.bias for classifier in model.classifiers])  # pyright: ignore
    return ClassifierWeights(norms=tuple(weight.norm(dim=1).tolist()), biases=tuple(bias.tolist()))


def logit_gap(batches: Iterable[tuple[Tensor, Tensor]], previous_channels: int) -> LogitGap | None:
    """The gaps over all pixels whose truth is a previous class; None when there is no such pixel.

    `batches`: logits [B, C, H, W] and truth [B, H, W] in channels, 255 for void. `previous_channels` includes background.
    Raises ValueError when the model has no new class.
    """
    total, pixels = torch.zeros(2, dtype=torch.float64), 0
    for logits, truth in batches:
        if logits.shape[1] <= previous_channels:
            raise ValueError("a model without new classes has no gap to them")
        of_previous = (truth > 0) & (truth < previous_channels)
        at = logits.permute(0, 2, 3, 1)[of_previous].double()
        previous = at[:, 1:previous_channels].amax(1)
        new = at[:, previous_channels:].amax(1)
        total += torch.stack([(new - previous).sum(), (at[:, 0] - previous).sum()]).cpu()
        pixels += len(at)
    if not pixels:
        return None
    new_gap, background_gap = (total / pixels).tolist()
    return LogitGap(
        new_minus_previous=new_gap, background_minus_previous=background_gap, pixels=pixels
    )


def corrected(
    logits: Tensor, previous_channels: int, gap: LogitGap, background: bool = False
) -> Tensor:
    """Logits [B, C, H, W] with the new classes' lowered by their gap, and if asked background's by its own.

    A gap the other way is no bias to correct.
    """
    lowered = logits.clone()
    lowered[:, previous_channels:] -= max(gap.new_minus_previous, 0.0)
    if background:
        lowered[:, 0] -= max(gap.background_minus_previous, 0.0)
    return lowered
