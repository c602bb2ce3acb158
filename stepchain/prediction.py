"""Load the model of a published step, and predict with it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from orchestrator.prediction.published_model import fetched
from stepchain.results import PublishedStep
from training.checkpoint import load_model as load_folder
from training.config import EvaluationConfig, InputError
from training.data.photo import decode_photo
from training.data.source import BadData
from training.models.segmenter import Segmenter
from training.predictor import at_size, load_predictor, whole_view


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
    with fetched(step.store, step.result.record) as folder:
        return load_folder(folder)[0].to(device)


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
        images: Paths of photos of any format, which are turned as their EXIF asks, or arrays of RGB
            pixels, uint8 [H, W, 3].
        device: `cpu`, `cuda` or any other device of PyTorch.

    Returns:
        For each image the dataset's class ids, uint8 [H, W]. `step.class_names` names them; 0 is
        background, where the model has it.

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
    record = step.result.record
    with fetched(step.store, record) as folder:
        precision = record.step.optimization.precision
        predictor = load_predictor(folder, torch.device(device), precision)
    config = step.result.evaluation.config
    found = []
    for image in images:
        pixels = _read_image(image)
        (labels,) = predictor([_view(pixels, config)])
        found.append(at_size(labels, *pixels.shape[:2]))
    return found


def _view(pixels: np.ndarray, config: EvaluationConfig) -> np.ndarray:
    try:
        return whole_view(pixels, config)
    except BadData as error:
        raise InputError(str(error)) from error


def _read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """Return RGB pixels, uint8 [H, W, 3], of a file or an array. Raise InputError for others."""
    if isinstance(image, (str, Path)):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise InputError(f"the image {image} cannot be read: {error.strerror}") from error
        try:
            return decode_photo(data)
        except BadData as error:
            raise InputError(f"{image}: {error}") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"an image must be RGB pixels, uint8 [H, W, 3]; this is {image.dtype} {image.shape}"
        )
    return image
