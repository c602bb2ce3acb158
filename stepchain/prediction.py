"""Load the model of a published step, and predict with it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from stepchain.results import PublishedStep
from training.data.transforms import evaluation_view, resize_mask
from training.evaluate import predict as predict_pixels
from training.models.segmenter import Segmenter


def load_model(step: PublishedStep, device: str = "cpu") -> Segmenter:
    """Load the network of a published step, ready to predict.

    Its files are verified against the step's record. The network is in evaluation mode and records
    no gradients. It takes normalised images, as `training.models.segmenter.normalise` returns them;
    `predict` does everything that an evaluation does.

    Args:
        step: As `find_step` returns it.
        device: `cpu`, `cuda` or any other device of PyTorch.

    Raises:
        InputError: A file of the step is missing or damaged.
    """
    return _load(step, device)[0]


def predict(
    step: PublishedStep,
    images: Iterable[str | Path | np.ndarray],
    device: str = "cpu",
) -> list[np.ndarray]:
    """Predict the class of each pixel, with the preprocessing of the step's evaluation.

    An image is resized as the evaluation resized it, but not cropped. The prediction has the
    image's own size again.

    Args:
        step: As `find_step` returns it.
        images: Paths of JPEG or PNG files, or arrays of RGB pixels, uint8 [H, W, 3].
        device: `cpu`, `cuda` or any other device of PyTorch.

    Returns:
        For each image the dataset's class ids, uint8 [H, W]. `step.class_names` names them; 0 is
        background.

    Raises:
        InputError: A file of the step is missing or damaged, or an image cannot be used.
    """
    model, document = _load(step, device)
    class_ids = torch.tensor(document.class_ids, dtype=torch.uint8, device=device)
    whole = step.result.evaluation.config.model_copy(update={"crop": None})
    found = []
    for image in images:
        pixels = _read_image(image)
        view, _ = evaluation_view(pixels, None, whole)
        batch = torch.from_numpy(view).permute(2, 0, 1)[None].to(device)
        labels = predict_pixels(model, batch, class_ids)[0].cpu().numpy()
        height, width = pixels.shape[:2]
        same = labels.shape == (height, width)
        found.append(labels if same else resize_mask(labels, (width, height)))
    return found
