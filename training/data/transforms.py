"""Decode images and masks, and cut the views that training and evaluation see, all in uint8.

Pixels are normalised later, in batches on the device, so that a quarter of the bytes pass between
processes. Masks are resized by INTER_NEAREST_EXACT, which puts pixel centres where images have
theirs, as Pillow does. OpenCV's plain INTER_NEAREST shifts masks by half a pixel.
"""

import math

import cv2
import numpy as np

from training.config import Augmentation, EvaluationConfig
from training.data.headers import undecodable
from training.data.mask_pixels import mask_ids
from training.data.reading import AS_STORED, Reading
from training.data.source import BadData

FileBytes = bytes | np.ndarray  # np.ndarray: uint8 [bytes]
View = tuple[np.ndarray, np.ndarray | None]  # image uint8 [H, W, 3], mask uint8 [H, W] or None
Buffers = tuple[np.ndarray | None, np.ndarray | None]  # memory for a view
# OpenCV's flip for each orientation of EXIF, 5 to 8 after exchanging rows and columns.
FLIPS = {1: None, 2: 1, 3: -1, 4: 0, 5: None, 6: 1, 7: -1, 8: 0}


def decode_image(data: FileBytes, orientation: int = 1) -> np.ndarray:
    """Return the RGB pixels of a photo's file, uint8 [H, W, 3].

    Args:
        data: The file.
        orientation: How to turn the pixels, as EXIF counts; 1 leaves them as they are stored. The
            file's own EXIF is not looked at (`training.data.headers.photo_header` does).

    Raises:
        BadData: The file cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except (cv2.error, MemoryError) as error:
        raise undecodable("image", error) from None
    if pixels is None:
        raise BadData("the image cannot be decoded: it is truncated, or not a JPEG or PNG")
    return turn(pixels, orientation)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels [H, W, ...] turned upright from an orientation of EXIF, 1 to 8."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = FLIPS[orientation]
    return pixels if flip is None else cv2.flip(pixels, flip)


def decode_mask(data: FileBytes, reading: Reading = AS_STORED) -> np.ndarray:
    """Return the class ids of a PNG mask, uint8 [H, W].

    Args:
        data: The file.
        reading: What its numbers or colours stand for.

    Raises:
        BadData: The file cannot be decoded, is of another kind, or holds what stands for no class.
    """
    try:
        return mask_ids(bytes(data), reading)
    except BadData:
        raise
    except Exception as error:  # noqa: BLE001  Pillow raises whatever its codecs do
        raise undecodable("mask", error) from None


def random_resized_crop(
    image: np.ndarray,
    mask: np.ndarray | None,
    augmentation: Augmentation,
    rng: np.random.Generator,
    out: Buffers = (None, None),
) -> View:
    """Cut a random box of image and mask, resize it to crop x crop, flip it half of the time.

    Masks are resized by nearest neighbour.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], or None.
        augmentation: How to cut and flip.
        rng: Decides the box and the flip.
        out: Memory for the result, of its size. Fresh memory, whose pages the system clears, costs
            more than a flip.

    Returns:
        The image, uint8 [crop, crop, 3], and the mask, uint8 [crop, crop], or None.
    """
    box, flip = _draw(image, augmentation, rng)
    size = (augmentation.crop, augmentation.crop)
    image = _resize(image[box], size, out[0])
    mask = None if mask is None else _resize_mask(mask[box], size, out[1])
    if flip:
        cv2.flip(image, 1, dst=image)
        if mask is not None:
            cv2.flip(mask, 1, dst=mask)
    return image, mask


def random_resized_layer(
    values: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Cut a companion layer of an image as `random_resized_crop` cuts the mask.

    Args:
        values: uint16 [H, W].
        augmentation: How to cut and flip.
        rng: As the image's before it was cut.

    Returns:
        uint16 [crop, crop].
    """
    box, flip = _draw(values, augmentation, rng)
    cut = _resize_mask(values[box], (augmentation.crop, augmentation.crop))
    return cv2.flip(cut, 1) if flip else cut


def _draw(
    pixels: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[tuple[slice, slice], bool]:
    """Return a random box of pixels [H, W, ...], and whether to flip what is in it."""
    top, left, height, width = crop_box(pixels.shape[0], pixels.shape[1], augmentation, rng)
    flip = bool(augmentation.flip and rng.random() < 0.5)
    return np.s_[top : top + height, left : left + width], flip


def crop_box(
    height: int, width: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, as the papers' code draws it.

    Ten boxes at most are drawn: the area fraction is uniform in `scale`, the aspect ratio
    log-uniform in `ratio`. The first that fits into the image is taken. When none does, it is the
    largest centred box whose aspect ratio is within `ratio`.
    """
    low, high = augmentation.ratio
    for _ in range(10):
        area = height * width * rng.uniform(*augmentation.scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    box_width, box_height = min(width, round(height * high)), min(height, round(width / low))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def evaluation_view(
    image: np.ndarray,
    mask: np.ndarray | None,
    config: EvaluationConfig,
    rng: np.random.Generator | None = None,
) -> View:
    """Resize the shorter side to `short_side` and crop the centre, for scoring.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], or None.
        config: The sizes.
        rng: Not used; training and evaluation views are called alike.

    Returns:
        The image, uint8 [h, w, 3], and the mask, uint8 [h, w], or None.
    """
    height, width = image.shape[:2]
    if config.short_side is not None:
        short = min(height, width)
        size = (width * config.short_side // short, height * config.short_side // short)
        image = _resize(image, size)
        mask = None if mask is None else _resize_mask(mask, size)
    if config.crop is not None:
        box = tuple(_centre(side, config.crop) for side in image.shape[:2])
        image = np.ascontiguousarray(image[box])
        mask = None if mask is None else np.ascontiguousarray(mask[box])
    return image, mask


def _centre(side: int, crop: int) -> slice:
    start = round(max(side - crop, 0) / 2)
    return slice(start, start + min(side, crop))


def _resize(image: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
    """Return the image at `size` (width, height)."""
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    # INTER_AREA averages over the pixels that fall together, so that nothing aliases. OpenCV has it
    # for images that shrink.
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size, dst=out, interpolation=interpolation)


def _resize_mask(
    mask: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None
) -> np.ndarray:
    return cv2.resize(mask, size, dst=out, interpolation=cv2.INTER_NEAREST_EXACT)
