"""PLOP's distillation (Douillard et al., CVPR 2021): what a map looks like, summed along rows and columns of its windows.

A local POD embedding keeps long-range statistics of the whole map (scale 1) and where things are (scales 2, 4), and leaves
single pixels free to change. Maps of several levels, from the encoder's stages to the logits, are kept alike in this way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SCALES = (1, 2, 4)


def local_pod(maps: Tensor) -> Tensor:
    """Local POD embedding, Eq. 5 and 6: [B, C, h, w] -> [B, n].

    For each scale s, s x s windows of side (h // s, w // s); of each window the means of its rows and of its columns. A scale
    with more windows than the map has cells is left out.
    """
    batch, _, height, width = maps.shape
    parts = []
    for scale in SCALES:
        high, wide = height // scale, width // scale
        if not (high and wide):
            continue
        for top in range(0, scale * high, high):
            for left in range(0, scale * wide, wide):
                window = maps[:, :, top : top + high, left : left + wide]
                parts += [window.mean(3).view(batch, -1), window.mean(2).view(batch, -1)]
    return torch.cat(parts, 1)


def pod_distance(maps: Tensor, previous_maps: Tensor) -> Tensor:
    """Distance of the squared maps' embeddings, mean over images (Eq. 7, one level); both [B, C, h, w]."""
    difference = local_pod(maps.square()) - local_pod(previous_maps.detach().square())
    return torch.linalg.vector_norm(difference, dim=1).mean()


def pod_loss(
    levels: Sequence[Tensor], previous_levels: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Weighted sum of the levels' distances over their number, times sqrt(C / (C - C_old)), as the public code has Eq. 7.

    The last level are the logits, [B, C, h, w] and [B, C_old, h, w]: those of new channels are added to background's first.
    """
    *maps, logits = levels
    channels, previous = logits.shape[1], previous_levels[-1].shape[1]
    background = logits[:, :1] + logits[:, previous:].sum(1, keepdim=True)
    folded = [*maps, torch.cat([background, logits[:, 1:previous]], 1)]
    distances = [
        w * pod_distance(now, before)
        for now, before, w in zip(folded, previous_levels, weights, strict=True)
    ]
    return torch.stack(distances).mean() * (channels / (channels - previous)) ** 0.5
