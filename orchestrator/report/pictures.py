"""Show label maps and images as picture files, and lay them out as the strips of a page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from orchestrator.records.results import ChainResult
from training.config import BACKGROUND, VOID

SMALL = 128  # pixels; smaller images are kept exact and shown enlarged


class WeakView(NamedTuple):
    """The targets of a WILSON step on one image, as uint8 [H, W] of dataset class ids."""

    localizer: np.ndarray  # the highest scored class among those that the image's labels allow
    supervision: np.ndarray  # the class with the largest target


class Picture(NamedTuple):
    """One image as it was scored. Label maps are uint8 [H, W] of dataset class ids."""

    id: str
    pixels: np.ndarray  # uint8 [H, W, 3]
    truth: np.ndarray
    predictions: list[np.ndarray]  # of each step
    # The targets of each step, None for a step that learned from masks. Empty when not shown.
    weak: Sequence[WeakView | None] = ()

    @property
    def label_maps(self) -> list[np.ndarray]:
        """Return all label maps of the image."""
        maps = [self.truth, *self.predictions]
        for view in self.weak:
            maps += view or ()
        return maps


class Thumbnail(NamedTuple):
    """A picture in a page: its file as a data URI and its content in words."""

    uri: str
    words: str
    small: bool  # shown enlarged


def palette() -> np.ndarray:
    """Return the colours of class ids in Pascal VOC, uint8 [256, 3]. Void is white."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    # Each group of three bits of the id gives one bit of red, green and blue, highest bit first.
    for bit in range(8):
        for channel in range(3):
            on = (ids >> (3 * bit + channel)) & 1
            colours[:, channel] |= (on << (7 - bit)).astype(np.uint8)
    colours[VOID] = 255
    return colours


def label_picture(labels: np.ndarray) -> bytes:
    """Return a label map as a PNG file with VOC's palette, whose values are the class ids.

    Args:
        labels: Dataset class ids, uint8 [H, W].
    """
    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    return _to_file(image, "PNG")


def photo(pixels: np.ndarray) -> bytes:
    """Return an image as a JPEG file, or as PNG when it is so small that JPEG would blur it.

    Args:
        pixels: The image, uint8 [H, W, 3].
    """
    image = Image.fromarray(pixels)
    return _to_file(image, "PNG" if max(image.size) <= SMALL else "JPEG", quality=85)


def overlay(pixels: np.ndarray, labels: np.ndarray, longest: int) -> np.ndarray:
    """Return a photo with the colours of its classes laid over and outlined, background as it is.

    Args:
        pixels: The photo, uint8 [H, W, 3].
        labels: Class ids, uint8 [H, W].
        longest: Pixels of the longer side, to which larger photos are shrunk.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = labels.shape
    scale = longest / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    colours = palette()[labels]
    mixed = cv2.addWeighted(pixels, 0.5, colours, 0.5, 0)
    shown = np.where((labels != BACKGROUND)[..., None], mixed, pixels)
    thickness = max(1, round(max(labels.shape) / 500))
    around = np.ones((1 + thickness, 1 + thickness), np.uint8)
    edge = cv2.dilate(labels, around) != cv2.erode(labels, around)
    return np.where((edge & (labels != BACKGROUND))[..., None], colours, shown)


def legend(pictures: Sequence[Picture], names: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return the names and colours of all classes in the pictures."""
    colours = palette()
    shown: set[int] = set()
    for picture in pictures:
        for labels in picture.label_maps:
            shown.update(np.unique(labels).tolist())
    return [(names[label], "#" + bytes(colours[label]).hex()) for label in sorted(shown)]


def strip_headings(
    chains: Sequence[ChainResult], pictures: Sequence[Picture]
) -> list[tuple[str, tuple[str, ...]]]:
    """Return the headings of a strip: of each chain, its steps and the targets of weak steps."""
    weak = iter(pictures[0].weak if pictures else ())
    headings = []
    for chain in chains:
        names: list[str] = []
        for step in chain.steps:
            names.append(f"step {step.record.index}")
            if next(weak, None):
                names += ["localizer", "pseudo-supervision"]
        headings.append((chain.name, tuple(names)))
    return headings


def build_strip(
    picture: Picture, chains: Sequence[ChainResult], names: Mapping[int, str]
) -> list[Thumbnail]:
    """Return the thumbnails of one image: itself, its truth, and what each step made of it.

    Args:
        picture: The image with predictions of all steps of the chains, in order.
        chains: The chains that predicted.
        names: Class names by dataset id.
    """
    small = max(picture.truth.shape) <= SMALL
    strip = [Thumbnail(_data_uri(photo(picture.pixels)), f"image {picture.id}", small)]
    for caption, labels in _captioned_maps(picture, chains):
        words = f"{caption}: {_classes_in(labels, names)}"
        strip.append(Thumbnail(_data_uri(label_picture(labels)), words, small))
    return strip


def _captioned_maps(
    picture: Picture, chains: Sequence[ChainResult]
) -> list[tuple[str, np.ndarray]]:
    """Return the label maps of an image with what they are."""
    steps = []
    for chain in chains:
        steps += [f"{chain.name} after step {step.record.index}" for step in chain.steps]
    maps = [("truth", picture.truth)]
    weak = picture.weak or [None] * len(steps)
    for step, prediction, view in zip(steps, picture.predictions, weak, strict=True):
        maps.append((step, prediction))
        if view:
            maps.append((f"{step}, its localizer", view.localizer))
            maps.append((f"{step}, its pseudo-supervision", view.supervision))
    return maps


def _classes_in(labels: np.ndarray, names: Mapping[int, str]) -> str:
    """Return the names of the classes in a label map, background and void left out."""
    present = set(np.unique(labels).tolist()) - {BACKGROUND, VOID}
    return ", ".join(names[label] for label in sorted(present)) or "background only"


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _to_file(image: Image.Image, kind: str, **options: int) -> bytes:
    out = BytesIO()
    image.save(out, kind, optimize=True, **options)
    return out.getvalue()
