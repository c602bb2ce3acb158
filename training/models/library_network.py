"""An encoder of the library Transformers, for a network that predicts without Stepchain.

It belongs to `network.py`, and needs torch and transformers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its images' colours


class Library(nn.Module):
    """An encoder that the library Transformers computes."""

    def __init__(self, backbone: dict[str, Any], stride: int) -> None:
        super().__init__()
        # Here, so that only such an encoder needs the library.
        from transformers import AutoBackbone, AutoConfig

        values = dict(backbone["architecture"])
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        self.maps, self.stride = backbone["maps"], stride
        # Four evenly spaced maps have norms among the weights, whether they are read or not.
        names = config.stage_names[: 1 + max(map(config.stage_names.index, self.maps))]
        stages = [name for name in names if name != "stem"] or names[-1:]
        levels = [stages[len(stages) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]
        config.out_features = [name for name in names if name in (*levels, *self.maps)]
        self.library = AutoBackbone.from_config(config).eval()
        with torch.device("meta"):
            trial = self.read(AutoBackbone.from_config(config).eval(), torch.empty(1, 3, 448, 672))
        self.width = sum(each.shape[1] for each in trial)
        self.grain = max(448 // each.shape[2] for each in trial)
        colours = torch.tensor([*IMAGENET, backbone["mean"], backbone["std"]]).double()
        self.colours = colours[:, :, None, None]

    def read(self, library: Any, x: Tensor) -> list[Tensor]:
        """Return the maps that the head reads."""
        maps = dict(zip(library.out_features, library(x).feature_maps, strict=True))
        return [maps[name] for name in self.maps]

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of images that were normalised by ImageNet's colours."""
        height, width = x.shape[2:]
        mean, std, own_mean, own_std = self.colours.to(x)
        x = (x * std + mean - own_mean) / own_std
        x = resize(x, *(-(-side // self.grain) * self.grain for side in (height, width)))
        maps = self.read(self.library, x)
        rows, columns = max(each.shape[2:] for each in maps)
        x = torch.cat([resize(each, rows, columns) for each in maps], 1)
        return resize(x, -(-height // self.stride), -(-width // self.stride))


def resize(x: Tensor, *size: int) -> Tensor:
    """Return a map at another size, bilinearly."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
