"""Define WILSON's localizer, which learns from image labels where classes are."""

import torch
from torch import Tensor, nn

from training.models.norm import Activation, BatchNorm, Layers, activation


class Localizer(nn.Module):
    """Map encoder features [B, in_channels, h, w] to class scores [B, classes, h, w].

    The scores are of all classes seen so far, background first. It has two 3x3 convolutions with
    norm and activation, and a 1x1 with bias. Each step trains a new one. It is published beside the
    model for figures, and neither inference nor a later step uses it.
    """

    def __init__(
        self, in_channels: int, channels: int, classes: int, act: Activation = "relu"
    ) -> None:
        super().__init__()
        self.body = Layers(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            BatchNorm(channels),
            activation(act),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNorm(channels),
            activation(act),
        )
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return class scores before the softmax, [B, classes, h, w]."""
        return self.classifier(self.body(features))

    def with_targets(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores in training mode and, without gradient, in evaluation mode.

        Both share the first convolution. Evaluation mode comes first, so its norms have the
        statistics of the batches before this one.

        Args:
            features: [B, in_channels, h, w].
        """
        first, rest = self.body[0], self.body[1:]
        convolved = first(features)
        self.eval()
        with torch.no_grad():
            targets = self.classifier(rest(convolved))
        self.train()
        return self.classifier(rest(convolved)), targets
