"""Turn the segmentation of an object of COCO into pixels.

A segmentation is polygons or run lengths. COCO's own library draws polygons. It reserves memory by
their length and checks nothing, so all numbers are checked before it sees them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from training.data.source import BadData

CORNERS = 3  # of the smallest polygon
# The longest outline that is drawn, in pixels. Drawing it takes some 100 MB.
LONGEST = 1_000_000


class NoOutline(BadData):
    """The object has no outline: nothing at all, a box, or a line."""


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the pixels that a segmentation covers, bool [height, width].

    Args:
        segmentation: Polygons, [[x, y, x, y, ...], ...], or run lengths, {size, counts}. Polygons
            of fewer than three corners cover nothing.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        NoOutline: There is no polygon of three corners.
        BadData: It is not what COCO's format says.
    """
    if isinstance(segmentation, dict) and segmentation:
        return _from_runs(_runs(segmentation, height, width), height, width)
    polygons = [part for part in _parts(segmentation) if len(part) >= 2 * CORNERS]
    if not polygons:
        raise NoOutline("it has no polygon of three corners")
    for polygon in polygons:
        _check_polygon(polygon, height, width)
    library: Any = coco_mask  # its types are narrower than what it takes
    drawn = library.merge(library.frPyObjects(polygons, height, width))
    return library.decode(drawn).astype(bool)


def short_parts(segmentation: Any) -> int:
    """Return how many polygons of a segmentation have fewer than three corners."""
    if not isinstance(segmentation, list):
        return 0
    return sum(len(part) < 2 * CORNERS for part in _parts(segmentation))


def _parts(segmentation: Any) -> list[list[float]]:
    """Return the polygons of a segmentation, which must be lists of numbers."""
    if not segmentation:
        return []
    if isinstance(segmentation, list) and all(_is_number(each) for each in segmentation):
        return [segmentation]  # one polygon without the list around it
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        for part in segmentation:
            if not all(_is_number(each) for each in part):
                raise BadData("a polygon of it holds something that is no number")
        return segmentation
    raise BadData("its segmentation is neither polygons nor run lengths")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _check_polygon(polygon: Sequence[float], height: int, width: int) -> None:
    """Raise BadData for a polygon that COCO's library must not be given."""
    if len(polygon) % 2:
        raise BadData(f"a polygon of it has {len(polygon)} coordinates, which are no pairs")
    for x, y in zip(polygon[::2], polygon[1::2], strict=True):
        if not (-width <= x <= 2 * width and -height <= y <= 2 * height):  # not true of NaN either
            outside = f"lies far outside of the image of {width} x {height}"
            wrong = "is no number" if x != x or y != y else outside
            raise BadData(f"a corner of it, ({x}, {y}), {wrong}")
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    if corners.min() >= 0 and corners.max() <= 1 and (corners % 1).any() and min(height, width) > 2:
        raise BadData(
            "its coordinates lie between 0 and 1: multiply them by the image's width and height"
        )
    length = np.abs(np.diff(corners, axis=0, append=corners[:1])).max(1).sum()
    if length > LONGEST:
        raise BadData(f"its outline is {length:.0f} pixels long, and at most {LONGEST} are drawn")


def _runs(segmentation: dict[str, Any], height: int, width: int) -> list[int]:
    """Return run lengths that cover the image exactly: off, on, off ..., column by column."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise BadData(f"its runs are for an image of {size}, and the image is {[height, width]}")
    if isinstance(counts, str):
        runs = _unpacked(counts.encode())
    elif isinstance(counts, list) and all(_is_number(run) for run in counts):
        runs = counts
    else:
        raise BadData("its run lengths are neither numbers nor text")
    if not all(0 <= run <= height * width and run == int(run) for run in runs):
        raise BadData("one of its run lengths is no count of pixels of the image")
    runs = [int(run) for run in runs]
    if sum(runs) != height * width:
        raise BadData(
            f"its runs cover {sum(runs)} pixels, and the image is {[height, width]}, "
            f"{height * width} pixels"
        )
    return runs


def _unpacked(text: bytes) -> list[int]:
    """Return the run lengths of COCO's text form.

    Each character holds 5 bits, lowest first, and a bit that says whether another one follows. From
    the fourth number on, the difference to the number before the last is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadData("its compressed run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise BadData("its compressed run lengths end within a number")
    return runs


def _from_runs(runs: Sequence[int], height: int, width: int) -> np.ndarray:
    covered = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return covered.reshape(width, height).T
