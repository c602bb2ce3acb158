"""Where along the network a later model still says what an earlier one said: the front of one joined to the end of the other.

If a 1x1 layer can translate what the later model's first layers compute into what the earlier model's remaining layers expect,
and the result still segments the earlier classes, then what those need was not lost up to there: it was, if at all, behind the
joint (Bansal et al., 2021; Csiszarik et al., 2021). Three joints are told apart. Identity: nothing is translated, so it
measures plain drift. Least squares: fitted to the earlier model's features in closed form. Trained: from there on, to the
earlier model's outputs, which need no label.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.segmenter import Segmenter

Joint = Literal["identity", "least_squares", "trained"]
LOGITS = "classifier"


def parts(model: Segmenter) -> dict[str, Callable[[Tensor], Tensor]]:
    """The network as parts that follow each other, from images to logits: stem, stages, head, classifier."""

    def classify(head: Tensor) -> Tensor:
        return torch.cat([classifier(head) for classifier in model.classifiers], dim=1)

    return {**model.encoder.parts(), "head": model.head, LOGITS: classify}


def run(
    model: Segmenter, x: Tensor, *, after: str | None = None, upto: str | None = None
) -> Tensor:
    """What the parts behind `after`, up to and with `upto`, make of `x`; None is the network's beginning and its end."""
    names = list(parts(model))
    first = names.index(after) + 1 if after else 0
    last = names.index(upto) + 1 if upto else len(names)
    for name in names[first:last]:
        x = parts(model)[name](x)
    return x


def identity_joint(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 layer that passes the first `outputs` of `inputs` channels: a later model has its new classes' logits last."""
    joint = nn.Conv2d(inputs, outputs, 1)
    with torch.no_grad():
        joint.weight.copy_(torch.eye(outputs, inputs)[:, :, None, None])
        joint.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    return joint


def least_squares_joint(pairs: Iterable[tuple[Tensor, Tensor]]) -> nn.Conv2d:
    """The 1x1 layer W, b of least sum over all pixels of |W x + b - y|^2.

    `pairs`: x [B, C, h, w] of the later model with y [B, D, h, w] of the earlier one, of the same images. Channels that say
    nothing of y get the smallest weights that serve (pseudo-inverse). Raises ValueError without any pair.
    """
    moments: tuple[Tensor, Tensor] | None = None
    for x, y in pairs:
        flat = _pixels(x).double()
        flat = torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
        both = flat.T @ flat, flat.T @ _pixels(y).double()
        moments = both if moments is None else (moments[0] + both[0], moments[1] + both[1])
    if moments is None:
        raise ValueError("a joint cannot be fitted to no images")
    solution = torch.linalg.pinv(moments[0], hermitian=True, rtol=1e-10) @ moments[1]
    joint = nn.Conv2d(len(solution) - 1, solution.shape[1], 1).to(solution.device)
    with torch.no_grad():
        joint.weight.copy_(solution[:-1].T[:, :, None, None])
        joint.bias.copy_(solution[-1])  # pyright: ignore[reportOptionalMemberAccess]
    return joint


def train_joint(
    joint: nn.Conv2d,
    earlier: Segmenter,
    cut: str,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    epochs: int,
    learning_rate: float,
) -> nn.Conv2d:
    """The joint trained further, in place, until the stitched outputs are the earlier model's.

    `batches()`: features [B, C, h, w] of the later model behind `cut`, and the logits [B, K, h, w] that the earlier model gives
    the same images. Minimises the mean over pixels of the cross-entropy of the stitched softmax to the earlier one's, by Adam;
    both models stay as they are.
    """
    optimizer = torch.optim.Adam(joint.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for features, wanted in batches():
            logits = run(earlier, joint(features), after=cut)
            loss = -(wanted.softmax(1) * F.log_softmax(logits, 1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return joint


def _pixels(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B h w, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
