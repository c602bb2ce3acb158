"""Fold the norms of a frozen model into its convolutions, once for all its forward passes.

`training.models.norm.convolve` folds a norm with fixed statistics at each pass, because a model
that trains changes its weights. A previous model and a published one never change. Their outputs
stay the same bit for bit. What a norm stood for is gone from the state, so a folded model is
neither trained nor saved.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from training.models.head import Head
from training.models.library_encoder import LibraryEncoder
from training.models.norm import BatchNorm, Layers, fold
from training.models.resnet import Bottleneck, ResNet
from training.models.segmenter import Segmenter

# The pairs of a convolution and the norm after it, by the names of a module's attributes. `Layers`
# has its pairs in order.
PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ResNet: (("conv1", "bn1"),),
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    Head: (("pooled_reduce", "pooled_norm"),),
}


@torch.no_grad()
def fold_norms(model: Segmenter) -> Segmenter:
    """Fold each norm of a frozen model into the convolution before it, in place; return the model.

    A norm is folded if it is in evaluation mode and directly follows a convolution without a bias.
    """
    for module in list(model.modules()):
        for convolution_name, norm_name in _pairs(module):
            convolution = module.get_submodule(convolution_name)
            norm = module.get_submodule(norm_name)
            assert isinstance(convolution, nn.Conv2d)
            if not isinstance(norm, BatchNorm) or norm.training or convolution.bias is not None:
                continue
            kernel, bias = fold(convolution, norm)
            convolution.weight = nn.Parameter(kernel, requires_grad=False)
            convolution.bias = nn.Parameter(bias, requires_grad=False)
            module.register_module(norm_name, nn.Identity())
    return model


def round_convolutions(model: Segmenter, dtype: torch.dtype) -> Segmenter:
    """Round the weights of all convolutions, in place; return the model.

    Autocast rounds them at each pass, to the same values. An encoder of Transformers keeps its
    weights, because that library reads their dtype.
    """
    for part in model.children():
        if isinstance(part, LibraryEncoder):
            continue
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)
    return model


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of the module's convolutions and of the norm after each."""
    yield from PAIRS.get(type(module), ())
    if isinstance(module, Layers):
        for (name, layer), (following, _) in pairwise(module.named_children()):
            if isinstance(layer, nn.Conv2d):
                yield name, following
