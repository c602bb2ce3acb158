"""Name the weights of a network of ours as other code does."""

import re

import torch
from torch import Tensor

from training.models.segmenter import Segmenter

PAPERS_HEAD = {
    "branches_norm": "map_bn",
    "pooled_reduce": "global_pooling_conv",
    "pooled_norm": "global_pooling_bn",
    "pooled_expand": "pool_red_conv",
    "reduce": "red_conv",
    "norm": "red_bn",
}
SCALE_EPS = 1e-5


def varied(model: Segmenter) -> Segmenter:
    """Give the norms of a new network weights and statistics that differ; return it, frozen."""
    generator = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if name.endswith(("weight", "var")) else noise - 0.5)
    return model.eval().requires_grad_(False)


def as_papers(model: Segmenter, in_place: bool = True) -> dict[str, Tensor]:
    """Return the weights of a network on a ResNet as the public code of WILSON, MiB or PLOP."""
    found = {}
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        is_scale = value.ndim == 1 and name.endswith("weight")
        if is_scale and in_place:
            # The sign means nothing to an in-place norm.
            value = (value - SCALE_EPS) * torch.where(torch.arange(len(value)) % 2 == 0, 1, -1)
        found[_papers_name(name)] = value
    return found


def as_torchvision(model: Segmenter) -> dict[str, Tensor]:
    """Return the weights of a network on a ResNet as torchvision's DeepLabV3."""
    found = {}
    state = model.state_dict()
    width = len(state["head.reduce.weight"])
    project = torch.cat([state["head.reduce.weight"], state["head.pooled_expand.weight"]], 1)
    found["classifier.0.project.0.weight"] = project
    others = {
        "head.pooled_reduce": "classifier.0.convs.4.1",
        "head.pooled_norm": "classifier.0.convs.4.2",
        "head.norm": "classifier.0.project.1",
        "head.refine.0": "classifier.1",
        "head.refine.1": "classifier.2",
        "classifiers.0": "classifier.4",
    }
    for name, value in state.items():
        part, _, entry = name.rpartition(".")
        if name.startswith("encoder."):
            found[f"backbone.{name.removeprefix('encoder.')}"] = value
        elif name.startswith("head.branches."):
            found[f"classifier.0.convs.{part[-1]}.0.{entry}"] = value
        elif part == "head.branches_norm":
            for number in range(4):
                piece = value if value.ndim == 0 else value[number * width : (number + 1) * width]
                found[f"classifier.0.convs.{number}.1.{entry}"] = piece
        elif part in others:
            found[f"{others[part]}.{entry}"] = value
    found["aux_classifier.4.bias"] = torch.zeros(21)
    return {name: value.clone() for name, value in found.items()}


def _papers_name(name: str) -> str:
    if found := re.fullmatch(r"encoder\.layer(\d)\.(\d+)\.(.+)", name):
        rest = found[3].replace("downsample.0", "proj_conv").replace("downsample.1", "proj_bn")
        inner = rest if rest.startswith("proj") else f"convs.{rest}"
        return f"body.mod{int(found[1]) + 1}.block{int(found[2]) + 1}.{inner}"
    start, _, rest = name.partition(".")
    if start == "encoder":
        return f"body.mod1.{rest}"
    if start == "classifiers":
        return f"cls.{rest}"
    part, _, entry = rest.rpartition(".")
    return f"head.{PAPERS_HEAD.get(part, part.replace('branches', 'map_convs'))}.{entry}"
