"""Convert weights of encoders with in-place activated batch norms to torchvision's names.

The papers' encoders have such norms. In-place ABN (Rota Bulò et al., CVPR 2018) normalises, scales
by |weight| + eps, adds the bias and applies a leaky ReLU of slope 0.01. With weight' = |weight| +
eps this is a batch norm followed by that activation. Its ResNets are therefore ours with
`activation` leaky_relu.
"""

import re
from collections.abc import Mapping

from torch import Tensor

EPS = 1e-5  # of the norm, and once more of its scale
BLOCK = re.compile(r"mod([2-5])\.block(\d+)\.(?:convs\.)?(.+)")
SHORTCUT = {"proj_conv": "downsample.0", "proj_bn": "downsample.1"}


def is_inplace_abn(state: Mapping[str, Tensor]) -> bool:
    """Return True if the entries are named as in the ResNets of mapillary/inplace_abn."""
    return "mod1.bn1.weight" in state


def from_inplace_abn(state: Mapping[str, Tensor], in_place: bool = True) -> dict[str, Tensor]:
    """Return the entries by torchvision's names, with |weight| + eps as the norms' weights.

    The classifier becomes `fc`. Unknown entries keep their names.

    Args:
        state: The entries of an encoder.
        in_place: False if its norms are plain ones, whose weights stay as they are.
    """
    converted = {}
    for name, value in state.items():
        module, _, entry = _torchvision_name(name).rpartition(".")
        layer = module.rpartition(".")[2]
        is_norm = layer.startswith("bn") or module.endswith("downsample.1")
        is_scale = in_place and is_norm and entry == "weight"
        converted[f"{module}.{entry}"] = plain_scale(value) if is_scale else value
    return converted


def plain_scale(weight: Tensor) -> Tensor:
    """Return the weight of the batch norm that scales as an in-place ABN of this weight."""
    return weight.abs() + EPS


def _torchvision_name(name: str) -> str:
    if found := BLOCK.fullmatch(name):
        stage = int(found[1]) - 1
        block = int(found[2]) - 1
        rest = found[3]
        layer, _, entry = rest.rpartition(".")
        return f"layer{stage}.{block}.{SHORTCUT.get(layer, layer)}.{entry}"
    return name.removeprefix("mod1.").removeprefix("classifier.")
