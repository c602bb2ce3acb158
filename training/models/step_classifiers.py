"""Define the classifiers of SSUL: a small network per step, and background and unknown apart.

Unknown stands for what an image shows and no step has named yet. It is no class: where the network
predicts, its probability is background's.
"""

import torch
from torch import Tensor, nn

from training.models.norm import Activation, BatchNorm, Layers, activation

# A sum of probabilities is kept this far from 0 and 1, where log-odds end.
MARGIN = 1e-6
# Where the sum exceeds 1, background's logit is at least this far above those of all classes.
LEAD = 0.01


class StepClassifier(nn.Module):
    """A 3x3 convolution with norm and activation, then a 1x1 convolution.

    Args:
        width: Channels of the input, and between the convolutions.
        classes: Channels of the output.
        act: The activation.
    """

    def __init__(self, width: int, classes: int, act: Activation) -> None:
        super().__init__()
        self.body = Layers(
            nn.Conv2d(width, width, 3, padding=1, bias=False), BatchNorm(width), activation(act)
        )
        self.scores = nn.Conv2d(width, classes, 1)

    def forward(self, head: Tensor) -> Tensor:
        """Return the logits [B, classes, h, w] of the head's output [B, width, h, w]."""
        return self.scores(self.body(head))

    @property
    def norms(self) -> list[nn.Module]:
        """Return its norms."""
        return [module for module in self.body if isinstance(module, BatchNorm)]


def join_unknown(logits: Tensor) -> Tensor:
    """Return the logits without unknown's, whose probability goes to background.

    p(background) = sigmoid(background) + sigmoid(unknown), and background's logit is its log-odds.
    The sum may exceed 1. It is cut there, and background wins, however sure a class is.

    Args:
        logits: [B, C + 1, h, w]; background is the first channel and unknown the last.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    together = logits[:, :1].sigmoid() + logits[:, -1:].sigmoid()
    classes = logits[:, 1:-1]
    cut = together.clamp(MARGIN, 1 - MARGIN)
    background = cut.log() - (-cut).log1p()
    winning = torch.maximum(background, classes.amax(1, keepdim=True) + LEAD)
    return torch.cat([torch.where(together > 1, winning, background), classes], 1)
