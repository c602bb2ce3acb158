"""Load the model of a published step, and predict with it."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from orchestrator.execution.worker import fetch_published
from stepchain.results import PublishedStep
from training.checkpoint import ModelDocument
from training.checkpoint import load_model as load_folder
from training.config import InputError
from training.data.source import BadData
from training.data.transforms import decode_image, evaluation_view
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

    Examples:
        >>> import numpy
        >>> from stepchain import find_step, open_store, predict
        >>> step = find_step(open_store("stepchain-store"), "digits_wilson:1")
        >>> image = numpy.zeros((48, 64, 3), numpy.uint8)
        >>> (labels,) = predict(step, [image])
        >>> labels.shape, labels.dtype
        ((48, 64), dtype('uint8'))
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
        if labels.shape != (height, width):
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        found.append(labels)
    return found


def _load(step: PublishedStep, device: str) -> tuple[Segmenter, ModelDocument]:
    """Fetch the step's files, verified, and rebuild the network from them."""
    with TemporaryDirectory(prefix="stepchain-model-") as scratch:
        folder = fetch_published(step.store, step.result.record, Path(scratch, "files"))
        model, document = load_folder(folder)
    return model.to(device), document


def _read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """Return RGB pixels, uint8 [H, W, 3], of a file or an array. Raise InputError for others."""
    if isinstance(image, (str, Path)):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise InputError(f"the image {image} cannot be read: {error.strerror}") from error
        try:
            return decode_image(data)
        except BadData as error:
            raise InputError(f"{image}: {error}") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"an image must be RGB pixels, uint8 [H, W, 3]; this is {image.dtype} {image.shape}"
        )
    return image
