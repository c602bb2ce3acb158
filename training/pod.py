"""Compute local POD (pooled outputs distillation), the distillation of PLOP.

Douillard et al., CVPR 2021. A local POD embedding holds the means of rows and columns of a map's
windows. Scale 1 keeps long-range statistics of the whole map; scales 2 and 4 keep where things are.
Single pixels stay free to change. The maps of several levels are distilled, from the encoder's
stages to the logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SCALES = (1, 2, 4)


def local_pod(maps: Tensor) -> Tensor:
    """Return the local POD embedding, Eq. 5 and 6: [B, C, h, w] -> [B, n].

    At each scale s there are s x s windows of size (h // s, w // s). The embedding holds the means
    of each window's rows and columns. A scale with more windows than the map has cells is left out.
    """
    batch, _, height, width = maps.shape
    means = []
    for scale in SCALES:
        high, wide = height // scale, width // scale
        if not (high and wide):
            continue
        for top in range(0, scale * high, high):
            for left in range(0, scale * wide, wide):
                window = maps[:, :, top : top + high, left : left + wide]
                means += [window.mean(3).view(batch, -1), window.mean(2).view(batch, -1)]
    return torch.cat(means, 1)


def pod_distance(maps: Tensor, previous_maps: Tensor) -> Tensor:
    """Return the distance of two levels' embeddings, averaged over images: Eq. 7 for one level.

    Embeddings are of the squared maps, both [B, C, h, w]. No gradient flows into the previous ones.
    """
    difference = local_pod(maps.square()) - local_pod(previous_maps.detach().square())
    return torch.linalg.vector_norm(difference, dim=1).mean()


def pod_loss(
    levels: Sequence[Tensor], previous_levels: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the loss over all levels, Eq. 7 as in the public code.

    It is the weighted mean of the levels' distances, times sqrt(C / (C - C_old)).

    Args:
        levels: Maps [B, C, h, w]. The last ones are the logits; those of new channels are added to
            background's first.
        previous_levels: The previous model's maps; its logits are [B, C_old, h, w].
        weights: One for each level. The weighted distances are divided by the number of levels.
    """
    *maps, logits = levels
    channels = logits.shape[1]
    previous = previous_levels[-1].shape[1]
    background = logits[:, :1] + logits[:, previous:].sum(1, keepdim=True)
    folded = [*maps, torch.cat([background, logits[:, 1:previous]], 1)]
    distances = [
        weight * pod_distance(now, before)
        for now, before, weight in zip(folded, previous_levels, weights, strict=True)
    ]
    return torch.stack(distances).mean() * (channels / (channels - previous)) ** 0.5
