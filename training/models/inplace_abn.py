"""Weights of the papers' encoders (in-place activated batch norm, Rota Bulò et al., CVPR 2018) under torchvision's names.

In-place ABN normalises, scales by |weight| + eps, adds the bias and applies a leaky ReLU of slope 0.01. With the scale written
out it is a batch norm followed by that activation, so its ResNets are ours with `activation` leaky_relu.
"""

import re
from collections.abc import Mapping

from torch import Tensor

EPS = 1e-5  # of the norm, and once more of its scale
BLOCK = re.compile(r"mod([2-5])\.block(\d+)\.(?:convs\.)?(.+)")
SHORTCUT = {"proj_conv": "downsample.0", "proj_bn": "downsample.1"}


def is_inplace_abn(state: Mapping[str, Tensor]) -> bool:
    """Whether the entries are named as in the ResNets of mapillary/inplace_abn."""
    return "mod1.bn1.weight" in state


def from_inplace_abn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries by torchvision's names, scales written out; the classifier becomes `fc`, what is unknown keeps its name."""
    converted = {}
    for name, value in state.items():
        module, _, entry = _torchvision_name(name).rpartition(".")
        is_scale = entry == "weight" and (
            module.rpartition(".")[2].startswith("bn") or module.endswith("downsample.1")
        )
        converted[f"{module}.{entry}"] = value.abs() + EPS if is_scale else value
    return converted


def _torchvision_name(name: str) -> str:
    if found := BLOCK.fullmatch(name):
        stage, block, rest = int(found[1]) - 1, int(found[2]) - 1, found[3]
        layer, _, entry = rest.rpartition(".")
        return f"layer{stage}.{block}.{SHORTCUT.get(layer, layer)}.{entry}"
    return name.removeprefix("mod1.").removeprefix("classifier.")
