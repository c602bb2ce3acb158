"""Find masks in which 255 is more likely a class than void.

Programs write black and white masks with 0 and 255, and 255 is void. Such a mask then shows no
class at all, and nothing else tells that its objects are lost.
"""

from collections.abc import Sequence
from itertools import chain

from training.config import BACKGROUND, VOID
from training.data.index_row import IndexRow
from training.data.reading import Asked
from training.data.source import BadData

# From this part of the images on, void without a class is no accident. VOC has no such image, and
# COCO, where only a crowd may be on a photo, hardly any.
NOTEWORTHY = 0.1
FEWEST = 2  # images
SHOWN = 3  # names in a message


def check_void(rows: Sequence[IndexRow], asked: Asked, masks_are_files: bool) -> list[str]:
    """Return what is to be said of void, and of images without a class.

    Args:
        rows: Of all splits.
        asked: What the person who ingests decides.
        masks_are_files: Whether masks hold the numbers of files, and are not made by the source.

    Raises:
        BadData: Masks hold void that may be meant as a class.
    """
    void = [row for row in rows if sum(row.pixels) < row.width * row.height]
    if not set(chain.from_iterable(row.values for row in rows)) - {BACKGROUND}:
        return _without_classes(rows, void)
    if not masks_are_files or not void or _is_decided(asked):
        return []
    alone = [row.id for row in void if not set(row.values) - {BACKGROUND}]
    if len(alone) >= max(FEWEST, NOTEWORTHY * len(rows)):
        found = (
            f"{len(alone)} of {len(rows)} masks hold only 0 and 255 ({_few(alone)}), and 255 is "
            "void, so that they show no class"
        )
        # Who draws void draws it around objects too.
        if len(alone) == len(void):
            raise BadData(
                f"{found}, while masks that show a class hold no 255: if 255 is a class, say so "
                "with --values 255=NAME (and name the other values there); if it is void, give "
                "--palette indices, or 255=void among --values"
            )
        return [f"{found}; if 255 is a class there, say so with --values 255=NAME"]
    if asked.masks:
        named = f"the first mask that holds it is that of {void[0].id}"
        return [f"255 stays void, as --values does not name it ({named})"]
    return []


def _is_decided(asked: Asked) -> bool:
    """Return whether the person who ingests has said what 255 is."""
    masks = asked.masks
    if masks is None:
        return False
    return masks.masks != "values" or not masks.values or VOID in dict(masks.values)


def _without_classes(rows: Sequence[IndexRow], void: Sequence[IndexRow]) -> list[str]:
    """Return a warning that no image shows any class. Raise BadData if masks hold void instead."""
    if void:
        raise BadData(
            f"no mask shows a class: they hold only 0 and 255, as that of {void[0].id} does, and "
            "255 is void; if it is a class, say so with --values 255=NAME"
        )
    return [
        f"no mask shows a class: all {len(rows)} are background only; check that they are the "
        "masks, and that annotations have outlines and not only boxes"
    ]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} ..." if len(names) > SHOWN else shown
