"""Stitch the first layers of a later model to the last layers of an earlier one.

A 1x1 layer translates what the later model's first layers compute into what the earlier model's
remaining layers expect. Suppose the result still segments the earlier classes. Then the information
those layers need still exists at the cut; any loss happens after it (Bansal et al., 2021; Csiszarik
et al., 2021). There are three joints:

* Identity translates nothing, so it measures how far the features drifted.
* Least squares is fitted to the earlier model's features in closed form.
* Trained starts from least squares and is trained towards the earlier model's outputs, without
  labels.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.library_encoder import LibraryEncoder
from training.models.library_parts import ImageSize, parts_of
from training.models.segmenter import Segmenter

CLASSIFIER = "classifier"
# Singular values of X^T X below this share of the largest count as 0.
SINGULAR_TOLERANCE = 1e-10


def parts(model: Segmenter, size: ImageSize | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the consecutive parts from images to logits: stem, stages, head, classifier.

    Args:
        model: The network.
        size: Of the images, which the later stages of an encoder of Transformers need.
    """

    if isinstance(model.encoder, LibraryEncoder):
        stages: dict[str, Callable[[Tensor], Tensor]] = dict(parts_of(model.encoder, size))
    else:
        stages = dict(model.encoder.parts())
    return {**stages, "head": model.head, CLASSIFIER: model.classify}


def run_parts(
    model: Segmenter,
    x: Tensor,
    *,
    after: str | None = None,
    upto: str | None = None,
    size: ImageSize | None = None,
) -> Tensor:
    """Run consecutive parts of the network.

    Args:
        model: The network.
        x: Input [B, C, h, w] of the first part that is run.
        after: The part before the first one that is run; None begins with the images.
        upto: The last part that is run; None goes on to the logits.
        size: Of the images, if `x` is not the images.

    Returns:
        The output [B, D, h', w'] of the last part.
    """
    if after is None:
        size = (x.shape[-2], x.shape[-1])
    consecutive = parts(model, size)
    names = list(consecutive)
    first = names.index(after) + 1 if after else 0
    last = names.index(upto) + 1 if upto else len(names)
    for name in names[first:last]:
        x = consecutive[name](x)
    return x


def identity_joint(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1x1 layer that passes on the first `outputs` of `inputs` channels.

    It also fits logits, because a later model has the logits of its new classes last.
    """
    joint = nn.Conv2d(inputs, outputs, 1)
    with torch.no_grad():
        joint.weight.copy_(torch.eye(outputs, inputs)[:, :, None, None])
        joint.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    return joint


def least_squares_joint(pairs: Iterable[tuple[Tensor, Tensor]]) -> nn.Conv2d:
    """Return the 1x1 layer W, b that minimizes the sum over all pixels of |W x + b - y|^2.

    With X [N, C + 1] of all pixels and a column of ones, and Y [N, D], the solution is
    [W b]^T = pinv(X^T X) X^T Y. The pseudo-inverse gives channels without information about y
    the smallest weights.

    Args:
        pairs: X [B, C, h, w] of the later model and y [B, D, h, w] of the earlier one, each
            pair of the same images.

    Raises:
        ValueError: There is no pair.
    """
    inputs: Tensor | None = None  # X^T X, [C + 1, C + 1]
    outputs: Tensor | None = None  # X^T Y, [C + 1, D]
    for x, y in pairs:
        flat = _pixels(x).double()
        flat = torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
        inputs_here, outputs_here = flat.T @ flat, flat.T @ _pixels(y).double()
        inputs = inputs_here if inputs is None else inputs + inputs_here
        outputs = outputs_here if outputs is None else outputs + outputs_here
    if inputs is None or outputs is None:
        raise ValueError("a joint cannot be fitted to no images")
    solution = torch.linalg.pinv(inputs, hermitian=True, rtol=SINGULAR_TOLERANCE) @ outputs
    joint = nn.Conv2d(len(solution) - 1, solution.shape[1], 1).to(solution.device)
    with torch.no_grad():
        joint.weight.copy_(solution[:-1].T[:, :, None, None])
        joint.bias.copy_(solution[-1])  # pyright: ignore[reportOptionalMemberAccess]
    return joint


def train_joint(
    joint: nn.Conv2d,
    earlier: Segmenter,
    cut: str,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor, ImageSize]]],
    epochs: int,
    learning_rate: float,
) -> nn.Conv2d:
    """Train the joint in place until the stitched outputs resemble the earlier model's.

    Minimize -sum_k p_k log q_k by Adam, averaged over pixels, where p is the softmax of the
    earlier model's logits and q that of the stitched network's. Both models stay as they are.

    Args:
        joint: The 1x1 layer to be trained.
        earlier: The earlier model.
        cut: The part after which the joint stands.
        batches: Called once per epoch; yields features [B, C, h, w] of the later model up to
            `cut`, the logits [B, K, h, w] that the earlier model gives the same images, and the
            images' height and width.
        epochs: How often all batches are used.
        learning_rate: Of Adam.

    Returns:
        The same joint.
    """
    optimizer = torch.optim.Adam(joint.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for features, target, size in batches():
            logits = run_parts(earlier, joint(features), after=cut, size=size)
            loss = -(target.softmax(1) * F.log_softmax(logits, 1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return joint


def _pixels(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B h w, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
