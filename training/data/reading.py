"""Say how the bytes of a dataset's files become pixels.

Files are stored as they are. What they mean is decided once, when they are ingested, and recorded
with the dataset: whether a photo is turned as its EXIF asks, and what the numbers or colours of a
mask stand for. This module imports no library for arrays or images, as `training.data.manifest`.
"""

from typing import Any, Literal

from pydantic import Field

from training.config import BACKGROUND, VOID, Document

# Pixels of the largest photo or mask that is read unless more are asked for: Pillow's own limit.
MAX_PIXELS = 2 * 89_478_485
# OpenCV decodes no larger image.
MOST_PIXELS = 2**30
NOTHING = dict[str, Any](legacy=())


# Red, green and blue of a colour in masks, and the class id that it stands for.
Colour = tuple[int, int, int, int]


class Reading(Document):
    """How the files of a dataset are read.

    The default is how all files were read before this was recorded. It is absent from JSON, so that
    older datasets keep their digests.
    """

    # Whether each row of an index says how its photo is turned. Otherwise all photos are as stored.
    turned: bool = Field(default=False, json_schema_extra={"legacy": False})
    # pillow: palette indices or 8-bit gray; gray of 2 or 4 bits is spread over 0 to 255.
    # values: palette indices or gray of any depth, the numbers in the file.
    # colours: the colours as they are shown.
    masks: Literal["pillow", "values", "colours"] = Field(
        default="pillow", json_schema_extra={"legacy": "pillow"}
    )
    # Pairs of a value and its class id. Values that are not among them are refused; 0 and 255 keep
    # their meaning. Empty: each value is a class id.
    values: tuple[tuple[int, int], ...] = Field(default=(), json_schema_extra=NOTHING)
    colours: tuple[Colour, ...] = Field(default=(), json_schema_extra=NOTHING)


class Asked(Document):
    """What the person who ingests a dataset decides, where files do not say it themselves."""

    # Of masks. Without it they are read by value, and what could mean something else is refused.
    masks: Reading | None = None
    # How photos are read whose size fits their mask both as stored and as EXIF turns them.
    orientation: Literal["upright", "stored"] | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def reading(self) -> Reading:
        """Return how masks are read while the dataset is checked."""
        return self.masks or BY_VALUE


AS_STORED = Reading()
NOTHING_ASKED = Asked()
BY_VALUE = Reading(masks="values")
BY_BRIGHTNESS = Reading(
    masks="colours", colours=tuple((value, value, value, value) for value in range(VOID + 1))
)


def voc_colour(id: int) -> tuple[int, int, int]:
    """Return the colour of a class id in Pascal VOC: red, green, blue."""
    colour = [0, 0, 0]
    # Each group of three bits of the id gives one bit of red, green and blue, highest bit first.
    for bit in range(8):
        for channel in range(3):
            colour[channel] |= ((id >> (3 * bit + channel)) & 1) << (7 - bit)
    return colour[0], colour[1], colour[2]


def voc_palette(classes: int) -> Reading:
    """Return the reading of masks in VOC's colours, with VOC's void."""
    ids = [*range(BACKGROUND, classes + 1), VOID]
    return Reading(masks="colours", colours=tuple((*voc_colour(id), id) for id in ids))
