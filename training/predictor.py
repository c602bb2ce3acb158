"""Predict photos of any size with a published model, seen as its evaluation saw images.

A photo is resized as for scoring, and nothing is cropped. Views go through the network together, or
tile by tile, so that at no time more than a square of `tile` pixels a side does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from training.config import EvaluationConfig, InputError, Precision
from training.data.source import BadData
from training.data.transforms import evaluation_view
from training.evaluate import predict
from training.precision import autocast
from training.tiles import predict_tiled
from training.trained_model import TrainedModel, load_trained

TILE = 1024  # pixels
MOST = 16  # views at once; their photos are kept in memory
LARGEST_VIEW = 1 << 28  # pixels; twenty times a photo of today's cameras
GRAIN = 32  # tiles and their overlaps are multiples of it, or of an output stride like 14


@dataclass(frozen=True)
class Predictor:
    """A published model on its device, and how much it takes at once. `load_predictor` makes one.

    Attributes:
        tile: Side of the square, in pixels, that goes through the network at once.
    """

    trained: TrainedModel
    tile: int

    def capacity(self, view: np.ndarray) -> int:
        """Return how many views of this size go through the network at once, 1 to `MOST`."""
        return min(MOST, max(1, self.tile**2 // (view.shape[0] * view.shape[1])))

    def __call__(self, views: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the class of each pixel of some views.

        Args:
            views: RGB, uint8 [h, w, 3], all of one size, as `whole_view` returns them. One alone
                may be of any size, others at most `capacity`.

        Returns:
            For each view the dataset's class ids, uint8 [h, w].

        Raises:
            InputError: The device has not enough memory.
        """
        model, class_ids = self.trained.model, self.trained.class_ids
        device = class_ids.device
        height, width = views[0].shape[:2]
        try:
            with autocast(self.trained.precision, device):
                if height * width > self.tile**2:
                    return [self._predict_tiled(view) for view in views]
                batch = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).to(device)
                return [*predict(model, batch, class_ids).cpu().numpy()]
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{device} has too little memory for {self.tile} x {self.tile} pixels at once: "
                "lower --tile"
            ) from error

    def _predict_tiled(self, view: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(view).permute(2, 0, 1)
        # Three eighths: two tiles share what the farthest branch of the head looks at.
        trained = self.trained
        overlap = _whole_grains(self.tile * 3 // 8, trained.output_stride)
        labels = predict_tiled(
            trained.model, pixels, trained.class_ids, self.tile, overlap, trained.output_stride
        )
        return labels.numpy()


def load_predictor(
    folder: Path, device: torch.device, precision: Precision = "float32", tile: int = TILE
) -> Predictor:
    """Return the model of a published step, ready to predict.

    Args:
        folder: The step's files.
        device: Where to predict.
        precision: In which the step was trained. A GPU predicts in it; a CPU does not round.
        tile: Side of the square, in pixels, that goes through the network at once. It is rounded
            down to a multiple of 32, or of an output stride that does not divide 32.
    """
    trained = load_trained(folder, device, precision)
    return Predictor(trained, _whole_grains(tile, trained.output_stride))


def _whole_grains(length: int, stride: int) -> int:
    """Return the length rounded down, so that it is whole cells of the encoder's map."""
    grain = stride if GRAIN % stride else GRAIN
    return length // grain * grain


def whole_view(pixels: np.ndarray, config: EvaluationConfig) -> np.ndarray:
    """Return a photo as its evaluation would resize it, not cropped.

    Args:
        pixels: RGB, uint8 [H, W, 3].
        config: How images were scored.

    Raises:
        BadData: The photo is so narrow that it would be enlarged beyond `LARGEST_VIEW`.
    """
    height, width = pixels.shape[:2]
    short = config.short_side or min(height, width)
    if height * width * (short / min(height, width)) ** 2 > LARGEST_VIEW:
        raise BadData(
            f"the photo is {width} x {height} pixels, too many with its shorter side at {short}: "
            "cut it, or give a smaller --short-side"
        )
    return evaluation_view(pixels, None, config.model_copy(update={"crop": None}))[0]


def at_size(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a label map, uint8 [h, w], at the size of its photo, by the nearest neighbour."""
    if labels.shape == (height, width):
        return labels
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
