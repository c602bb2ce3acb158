"""WILSON's localizer: a small head on the encoder's features that learns from image labels where classes are."""

from torch import Tensor, nn

from training.models.norm import Activation, BatchNorm, Layers, activation


class Localizer(nn.Module):
    """Encoder features [B, in_channels, h, w] -> scores [B, classes, h, w] of all seen classes, background first.

    Two 3x3 convolutions with norm and activation, and a 1x1 with bias. Each step trains a new one. It
    is published beside the model for figures, and neither inference nor a later step uses it.
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
        """Class scores before the softmax."""
        return self.classifier(self.body(features))
