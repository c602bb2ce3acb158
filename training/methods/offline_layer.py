"""Train the offline route with pseudo-labels from outside: a companion layer holds them.

Any tool may have made the layer (`jobs.ingest layer`): a foundation model asked for the classes'
names, or a network of weakly supervised segmentation. Its values are the dataset's class ids, 0
background and 255 where it says nothing. No mask is read. The image labels have the last word: a
class that they do not name is background.

The loss is that of `offline`, WILSON's Eq. 8 with hard labels, at the image's resolution. In step 0
it is the binary cross-entropy to the labels alone.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.config import VOID
from training.losses import binary_cross_entropy, joint_binary_cross_entropy
from training.methods import base
from training.models.segmenter import upsample
from training.scenario import label_map


class Config(BinaryMethodConfig):
    """The layer that holds the pseudo-labels."""

    name: Literal["offline-layer"] = "offline-layer"
    layer: str = Field(default="labels", min_length=1)
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    layer_fields: ClassVar[tuple[str, ...]] = ("layer",)
    layers_hold_classes: ClassVar[bool] = True

    def check_first_step(self) -> None:
        """Allow step 0: without a previous model the pseudo-labels are all that is learned."""

    @property
    def use_of_background(self) -> str:
        """Return what the target of background is made of."""
        return "takes what the layer does not name for background"


class Method(base.Method):
    """The loss to the layer's labels."""

    config: Config
    channels: Tensor  # int64 [65536], the channel of each value of the layer

    def set_up(self) -> None:
        """Register which channel each value of the layer stands for."""
        table = torch.zeros(2**16, dtype=torch.int64)
        table[:256] = torch.from_numpy(label_map(self.step.task)).long()
        table[VOID] = VOID
        self.register_buffer("channels", table, persistent=False)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the segmentation loss."""
        labels = self.labels(batch)
        now = self.outputs(batch.images)
        logits = upsample(now.logits, labels.shape[-2:])
        if self.is_first:
            return {"segmentation": binary_cross_entropy(logits, labels, self.mean)}
        before = upsample(self.previous_outputs(batch.images).logits, labels.shape[-2:])
        # Where the layer says nothing, new classes learn nothing.
        first = before.shape[1]
        silent = (labels == VOID)[:, None]
        new = torch.where(silent, logits[:, first:].detach(), logits[:, first:])
        logits = torch.cat([logits[:, :first], new], 1)
        return {"segmentation": joint_binary_cross_entropy(logits, labels, before, "smaller")}

    @torch.no_grad()
    def labels(self, batch: base.Batch) -> Tensor:
        """Return the channel that the layer gives each pixel, int64 [B, H, W]; 255 is none."""
        found = self.channels[batch.layers[self.config.layer].long()]
        present = F.pad(batch.image_labels > 0, (1, 0), value=True)
        named = present.gather(1, found.where(found != VOID, 0).flatten(1)).view_as(found)
        return torch.where(named, found, 0).where(found != VOID, VOID)
