"""Run an encoder of Transformers from one of its stages to another, for stitching.

The library offers no parts, so hooks stand at the stages. One takes what a stage would read, or
hands another value to it. A state of tokens [B, N, C] is shown as a map [B, C, N, 1], of which a
1x1 layer changes each token alike, those for the whole image among them.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from training.models.library import stage_names
from training.models.library_encoder import LibraryEncoder

ImageSize = tuple[int, int]  # height and width


class StagesOf:
    """The encoder from before stage `first` to before stage `last`: a part of `parts_of`.

    Args:
        encoder: The encoder.
        first: Number of the first stage that is run, from 0.
        last: Number of the stage to stop before; None goes on to the features.
        size: Of the images that the whole network sees. Only the part from stage 0 does without.
    """

    def __init__(
        self, encoder: LibraryEncoder, first: int, last: int | None, size: ImageSize | None
    ) -> None:
        self.encoder, self.first, self.last, self.size = encoder, first, last, size

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the next part reads, as a map, or the features.

        Args:
            x: Images [B, 3, H, W], or what the part before returned.
        """
        stages = stages_of(self.encoder)
        assert stages is not None
        found: list[Tensor] = []

        def replace(stage: nn.Module, inputs: Any) -> Any:
            state, *others = inputs
            given = x.flatten(2).transpose(1, 2) if state.ndim == 3 else x
            return given, *others

        def take(stage: nn.Module, inputs: Any) -> None:
            state = inputs[0]
            found.append(state.transpose(1, 2)[..., None] if state.ndim == 3 else state)

        hooks = []
        images = x
        if self.first:
            if self.size is None:
                raise ValueError("the later parts of an encoder need the size of the images")
            images = torch.zeros(len(x), 3, *self.size, dtype=x.dtype, device=x.device)
            hooks.append(stages[self.first].register_forward_pre_hook(replace))
        if self.last is not None:
            hooks.append(stages[self.last].register_forward_pre_hook(take))
        try:
            features = self.encoder(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found[0] if found else features


def parts_of(encoder: LibraryEncoder, size: ImageSize | None) -> dict[str, StagesOf]:
    """Return the encoder as parts that follow each other: up to the first map that the head reads.

    The ends are those of its levels. An encoder whose stages cannot be found is one part.

    Args:
        encoder: The encoder.
        size: Of the images; None for the names alone, or the first part.
    """
    stages = stages_of(encoder)
    names = [name for name in stage_names(encoder.architecture) if name != "stem"]
    first_read = min((names.index(name) for name in encoder.maps if name in names), default=0)
    ends = [names.index(level) + 1 for level in encoder.layout.levels]
    cuts = [end for end in ends if end <= first_read] if stages is not None else []
    if not cuts:
        return {"encoder": StagesOf(encoder, 0, None, size)}
    found = {
        f"stage {number}": StagesOf(encoder, first, last, size)
        for number, (first, last) in enumerate(pairwise([0, *cuts]), start=1)
    }
    return found | {f"stage {len(cuts) + 1}": StagesOf(encoder, cuts[-1], None, size)}


def stages_of(encoder: LibraryEncoder) -> nn.ModuleList | None:
    """Return the library's list of stages, or of layers; None if it has no list of that length."""
    count = sum(name != "stem" for name in stage_names(encoder.architecture))
    lists = (module for module in encoder.library.modules() if isinstance(module, nn.ModuleList))
    return next((each for each in lists if len(each) == count), None)
