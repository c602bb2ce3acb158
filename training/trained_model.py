"""A published model as it scores images: on its device, norms folded, in its step's precision."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import load_model
from training.config import Precision
from training.models.folding import fold_norms
from training.models.segmenter import Segmenter
from training.precision import set_precision


@dataclass(frozen=True)
class TrainedModel:
    """What a published step predicts with. `load_trained` makes one.

    Attributes:
        model: The network, for inference alone.
        class_ids: The dataset's class id of each channel, uint8 [C], on the model's device.
        output_stride: Pixels of the image a side of a cell of the encoder's map.
        precision: In which it predicts.
    """

    model: Segmenter
    class_ids: Tensor
    output_stride: int
    precision: Precision


def load_trained(folder: Path, device: torch.device, precision: Precision) -> TrainedModel:
    """Return the model of a published step.

    Args:
        folder: The step's files.
        device: Where to predict.
        precision: In which the step was trained. A GPU predicts in it; a CPU does not round.
    """
    if device.type != "cuda":
        precision = "float32"
    set_precision(precision, device, fixed_shapes=False)
    model, document = load_model(folder)
    fold_norms(model.to(device=device, memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    class_ids = torch.tensor(document.class_ids, dtype=torch.uint8, device=device)
    return TrainedModel(model, class_ids, document.model.output_stride, precision)
