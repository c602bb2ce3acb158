"""Define encoders that the library Transformers computes, with what every encoder of ours has.

Four facts to know:
1. The library's module always runs in evaluation mode, also in training. Dropout, stochastic depth
   and random position embeddings are therefore off. A step's weights follow from its document, and
   a checkpoint needs no random state.
2. A side that is no multiple of the coarsest map's stride is enlarged to the next one: 512 becomes
   518 at patch 14. The map then covers the whole image and nothing else, as `upsample` reads it.
   The library interpolates position embeddings to the map's size.
3. Images come normalised by ImageNet's colours and are restated by the encoder's own.
4. Weights that the features do not depend on are not trained: a norm of a map that the head does
   not read, a token for masked patches.
"""

from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from training.config import InputError, ModelConfig
from training.models.library import build_backbone, run_backbone, stage_names

# Of the pictures without values by which an encoder is measured. Both differ from what encoders
# were pretrained on, so one that takes images of a single size is found out.
TRIAL = (448, 672)
LEVELS = 4  # whose maps are distilled by PLOP


class Layout(NamedTuple):
    """What an encoder has, as its own forward pass shows."""

    levels: tuple[str, ...]  # the library's names of the maps at the ends of the stages
    channels: int  # of the features
    stride: int  # pixels of a cell of the features
    grain: int  # sides of images are brought to a multiple of it
    unused: frozenset[str]  # parameters that the features do not depend on


class LibraryEncoder(nn.Module):
    """Map images [B, 3, H, W] to features [B, channels, h, w], h = ceil(H / stride).

    Args:
        backbone: Its document.
    """

    unused = ()

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.layout = layout_of(backbone)
        self.channels = self.layout.channels
        self.maps = backbone.maps
        self.architecture = backbone.architecture
        self.library = build_backbone(backbone.architecture, _asked(backbone))
        for name, parameter in self.library.named_parameters():
            parameter.requires_grad_(name not in self.layout.unused)
        self.own_colours = (backbone.mean, backbone.std) != (IMAGENET_MEAN, IMAGENET_STD)
        mean, std, imagenet_mean, imagenet_std = (
            torch.tensor(values, dtype=torch.float64)[:, None, None]
            for values in (backbone.mean, backbone.std, IMAGENET_MEAN, IMAGENET_STD)
        )
        # images * scale + shift are the images by the encoder's own colours.
        self.scale = nn.Buffer(imagenet_std / std, persistent=False)
        self.shift = nn.Buffer((imagenet_mean - mean) / std, persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; the library's own stays in evaluation mode."""
        super().train(mode)
        self.library.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images that were normalised by ImageNet's colours."""
        return self.stages(images)[0]

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features, and the maps of the levels. No activation follows them."""
        maps = self._maps(images)
        read = [maps[name] for name in self.maps]
        finest = max((each.shape[-2:] for each in read), key=lambda size: size[0] * size[1])
        features = torch.cat([_at_size(each, finest) for each in read], 1)
        stride = self.layout.stride
        cells = torch.Size(-(-side // stride) for side in images.shape[-2:])
        features = _at_size(features, cells).contiguous(memory_format=torch.channels_last)
        return features, tuple(maps[name] for name in self.layout.levels)

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the library's maps by name."""
        if self.own_colours:
            images = images * self.scale.to(images.dtype) + self.shift.to(images.dtype)
        grain = self.layout.grain
        images = _at_size(
            images, torch.Size(-(-side // grain) * grain for side in images.shape[-2:])
        )
        return run_backbone(self.library, images.contiguous())


@cache
def layout_of(backbone: Backbone) -> Layout:
    """Return what the encoder has, from a forward and backward pass without values.

    It draws no random numbers of the caller's.

    Raises:
        InputError: The library cannot build it, or it takes no images of any size.
    """
    asked = _asked(backbone)
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.enable_grad():
        library = build_backbone(backbone.architecture, asked).eval()
        try:
            maps = run_backbone(library, torch.empty(1, 3, *TRIAL))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the encoder {backbone.kind!r} takes no images of {TRIAL[0]} x {TRIAL[1]} pixels "
                f"({' '.join(str(error).split())[:200]}): take one that takes images of any size"
            ) from error
        if any(each.ndim != 4 for each in maps.values()):
            raise InputError(
                f"the encoder {backbone.kind!r} returns no maps: set reshape_hidden_states of its "
                "architecture to true"
            )
        read = [maps[name] for name in backbone.maps]
        torch.stack([each.sum() for each in read]).sum().backward()
    strides = [TRIAL[0] // each.shape[-2] for each in read]
    unused = frozenset(n for n, value in library.named_parameters() if value.grad is None)
    channels = sum(each.shape[1] for each in read)
    return Layout(_levels(backbone), channels, min(strides), max(strides), unused)


def check_library_encoder(config: ModelConfig) -> None:
    """Raise InputError unless the library has the encoder, and the model's other fields fit it."""
    if config.backbone is None:
        raise InputError(
            "the encoder transformers needs to know which: give --encoder-weights FOLDER with the "
            "library's config.json and model.safetensors, or model.backbone, as "
            "stepchain.library_model returns it"
        )
    layout = layout_of(config.backbone)
    if config.output_stride != layout.stride:
        raise InputError(
            f"the map {config.backbone.maps[0]!r} of {config.backbone.kind!r} has cells of "
            f"{layout.stride} pixels: set model.output_stride to {layout.stride}"
        )
    if config.encoder_norm == "frozen" or config.dilated_blocks == "all":
        raise InputError(
            "an encoder of Transformers has no batch norms and no dilated blocks: leave "
            "model.encoder_norm and model.dilated_blocks out"
        )


def _asked(backbone: Backbone) -> tuple[str, ...]:
    """Return the names of all maps that the encoder computes."""
    return tuple({**dict.fromkeys(_levels(backbone)), **dict.fromkeys(backbone.maps)})


def _levels(backbone: Backbone) -> tuple[str, ...]:
    """Return the stages up to the last map that the head reads; of many, four evenly spaced."""
    stages = stage_names(backbone.architecture)
    last = max((stages.index(name) for name in backbone.maps if name in stages), default=0)
    before = [name for name in stages[: last + 1] if name != "stem"] or [stages[last]]
    count = min(LEVELS, len(before))
    return tuple(before[len(before) * number // count - 1] for number in range(1, count + 1))


def _at_size(values: Tensor, size: torch.Size) -> Tensor:
    """Return [B, C, h, w] at another size, bilinearly; as it is if it has the size."""
    if values.shape[-2:] == size:
        return values
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)
