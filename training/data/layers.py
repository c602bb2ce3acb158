"""Read companion layers: further maps of a dataset's images, such as saliency or superpixels.

A layer is stored like a split whose rows have a map in the place of the mask, and no photo. Its
values mean what the method that reads it says. They are numbers of 1 to 16 bits.
"""

import io

import cv2
import numpy as np
from numpy.random import Generator
from PIL.PngImagePlugin import PngImageFile

from training.config import VOID
from training.data.headers import MaskHeader, check_size, file_format, mask_header, undecodable
from training.data.mask_pixels import png_numbers
from training.data.reading import MOST_PIXELS
from training.data.shards import LocalSplit, byte_range
from training.data.source import BadData

LARGEST_VALUE = 2**16 - 1
# Pillow's modes of PNG files that hold one number for each pixel: bits, gray, palette, 16 bits.
NUMBERS = ("1", "L", "P", "I;16", "I")


def decode_layer(data: bytes | np.ndarray) -> np.ndarray:
    """Return the values of a map's PNG file, uint16 [H, W].

    Raises:
        BadData: The file cannot be decoded, or has colours.
    """
    data = bytes(data)
    if file_format(data) != "PNG":
        raise BadData("the map is no PNG file: save it as one, gray or with a palette")
    header = mask_header(data)
    check_size(header.width, header.height, MOST_PIXELS, "map")
    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            return _numbers(picture, header)
    except BadData:
        raise
    except Exception as error:  # noqa: BLE001  Pillow raises whatever its codecs do
        raise undecodable("map", error) from None


def _numbers(picture: PngImageFile, header: MaskHeader) -> np.ndarray:
    if picture.mode not in NUMBERS:
        raise BadData(
            f"the map is a PNG of mode {picture.mode}, and a layer has one number for each pixel: "
            "save it as gray of 8 or 16 bits, or with a palette"
        )
    return png_numbers(picture, header).astype(np.uint16)


def check_classes(values: np.ndarray, classes: int) -> None:
    """Raise BadData for a map whose values are not all class ids, 0 and 255."""
    unknown = (values > classes) & (values != VOID)
    if unknown.any():
        raise BadData(
            f"the map holds {int(values[unknown][0])}, and the method reads class ids from it: "
            f"1 to {classes}, 0 for background and 255 for nothing known; correct the map and "
            "ingest the layer again"
        )


def uncut(values: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a map whole."""
    return values


class LayerReader:
    """Reads the maps of some images.

    Args:
        layer: The layer, as `LocalSplit.layers` has it.
        rows: int64 [n], the row of the layer for each image.
        classes: How many classes the dataset has, if the values must be class ids.
    """

    def __init__(self, layer: LocalSplit, rows: np.ndarray, classes: int | None = None) -> None:
        self._layer = layer
        self._rows = rows
        self._classes = classes
        self._mapped: dict[int, np.ndarray] = {}  # shards by number

    def read(self, position: int) -> np.ndarray:
        """Return the map of the image at a position, uint16 [H, W].

        Raises:
            BadData: It cannot be decoded, or holds what is no class id and must be one.
            Unavailable: Its shard cannot be read or fetched.
        """
        row = int(self._rows[position])
        index = self._layer.index
        number = int(index.shard[row])
        if number not in self._mapped:
            cv2.setNumThreads(0)  # the process is one of many
            self._mapped[number] = self._layer.open_shard(row)
        try:
            values = decode_layer(byte_range(self._mapped[number], index.mask_range[row]))
            if self._classes is not None:
                check_classes(values, self._classes)
            return values
        except BadData as error:
            raise BadData(
                f"row {row} (id {index.ids[row]}) of {self._layer.name}: {error}"
            ) from None
