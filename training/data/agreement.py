"""Decide how a dataset's files are read, from what all of its rows say of themselves.

One image may leave open what the others show: whether masks were drawn on upright photos, or
whether their palettes are class ids. What even all of them leave open is asked, in one sentence
that names the option which answers it.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from training.config import BACKGROUND
from training.data.index_row import IndexRow
from training.data.reading import AS_STORED, BY_VALUE, Asked, Reading, voc_colour
from training.data.source import BadData
from training.data.voc import VOC_CLASSES
from training.data.void_masks import check_void

PLAIN_MASKS = ("palette", "gray 8")  # read alike by value and as before values were recorded
BLACK = "000000"
FEW_BITS = ("gray 1", "gray 2", "gray 4")


class Agreement(NamedTuple):
    """How the files of a dataset are read."""

    reading: Reading
    turns: dict[str, list[int]]  # by split: how each row's photo is turned, as EXIF counts
    remarks: list[str]  # what was found and decided, for the person who ingests


def agree(
    rows: Mapping[str, Sequence[IndexRow]],
    classes: Sequence[str],
    asked: Asked,
    *,
    masks_are_files: bool = True,
) -> Agreement:
    """Decide how the rows of all splits are read.

    Args:
        rows: Of each split.
        classes: Of the dataset.
        asked: What the person who ingests decides.
        masks_are_files: Whether masks hold the numbers of files, and are not made by the source.

    Raises:
        BadData: The rows leave it open, or contradict each other.
    """
    flat = list(chain.from_iterable(rows.values()))
    check_masks(flat, classes, asked)
    remarks = check_void(flat, asked, masks_are_files)
    both, of_photos = _orientation(rows, asked)
    turns = {split: _turns(of_split, both) for split, of_split in rows.items()}
    reading = _mask_reading(flat, asked)
    if set(chain.from_iterable(turns.values())) - {1}:
        reading = reading.model_copy(update={"turned": True})
    return Agreement(reading, turns, [*of_photos, *_found(rows), *remarks])


def check_masks(rows: Iterable[IndexRow], classes: Sequence[str], asked: Asked) -> None:
    """Raise BadData where the numbers in masks may not be class ids, and nothing was asked."""
    if asked.masks:
        return
    shown: dict[int, tuple[str, str]] = {}  # value -> colour, and the image that shows it so
    few_bits: IndexRow | None = None
    other: IndexRow | None = None
    for row in rows:
        for value, colour in row.seen.colours.items():
            first = shown.setdefault(value, (colour, row.id))
            if tuple(classes) == VOC_CLASSES and not _is_vocs(value, colour):
                raise _asked_back(
                    f"the mask of {row.id} shows the value {value} as #{colour}, and VOC's palette "
                    f"as #{bytes(voc_colour(value)).hex()}: its palette is not VOC's"
                )
            if first[0] != colour:
                raise _asked_back(
                    f"the masks of {first[1]} and {row.id} have different palettes: the value "
                    f"{value} is #{first[0]} in one and #{colour} in the other"
                )
        if row.seen.mask not in FEW_BITS:
            other = other or row
        elif set(row.values) != {BACKGROUND}:
            few_bits = few_bits or row
    colours = {value: colour for value, (colour, _) in shown.items()}
    _check_brightness(colours)
    _check_background(colours)
    if few_bits and other:
        raise _asked_back(
            f"the mask of {few_bits.id} has {few_bits.seen.mask[-1]} bits of gray and that of "
            f"{other.id} others: a program may have packed its values"
        )


def _is_vocs(value: int, colour: str) -> bool:
    """Return whether VOC, or a palette of grays, shows the value in this colour."""
    return colour in (bytes(voc_colour(value)).hex(), bytes([value] * 3).hex())


def _check_brightness(shown: Mapping[int, str]) -> None:
    """Raise BadData for palettes of grays in which the gray, not the index, may be the class."""
    grays = {value: colour for value, colour in shown.items() if colour == colour[:2] * 3}
    distinct = len(set(grays.values())) == len(shown) > 1
    wrong = [value for value, colour in grays.items() if int(colour[:2], 16) != value]
    if distinct and wrong:
        raise _asked_back(
            f"the masks' palette has only grays, and the value {wrong[0]} is gray "
            f"{int(grays[wrong[0]][:2], 16)} in it"
        )


def _check_background(shown: Mapping[int, str]) -> None:
    """Raise BadData for palettes that show background, value 0, in a colour and a class in black.

    Programs that reduce pictures to few colours number them as they find them.
    """
    black = [value for value, colour in shown.items() if value and colour == BLACK]
    if black and shown.get(BACKGROUND, BLACK) != BLACK:
        raise _asked_back(
            f"the masks' palettes show the value {black[0]} as black and 0 as "
            f"#{shown[BACKGROUND]}, and 0 is background"
        )


def _asked_back(found: str) -> BadData:
    return BadData(
        f"{found}; say what masks mean: --palette indices takes the numbers in the files as class "
        "ids, --palette voc or FILE reads their colours, --palette gray their brightness"
    )


def _mask_reading(rows: Sequence[IndexRow], asked: Asked) -> Reading:
    """Return the reading to record: none for masks that were always read so."""
    if asked.masks and asked.masks != BY_VALUE:
        return asked.masks
    plain = all(row.seen.mask in PLAIN_MASKS for row in rows)
    return AS_STORED if plain else BY_VALUE


def _turns(rows: Sequence[IndexRow], both: str) -> list[int]:
    """Return how each photo is turned; those that fit both ways are read as `both` says."""
    upright = ("upright", "both") if both == "upright" else ("upright",)
    return [row.seen.exif if row.seen.fits in upright else 1 for row in rows]


def _orientation(rows: Mapping[str, Sequence[IndexRow]], asked: Asked) -> tuple[str, list[str]]:
    """Decide how photos are read that fit their masks in both ways, and say so.

    The other photos show how the masks were made. Where no photo shows it, they are taken to be
    upright: annotation tools draw on the photo as viewers show it.
    """
    turned: dict[str, list[str]] = {"upright": [], "stored": [], "both": []}
    for split, of_split in rows.items():
        for row in of_split:
            if row.seen.exif != 1:
                turned[row.seen.fits].append(f"{split}/{row.id}")
    upright, stored, both = turned.values()
    remarks = []
    if upright:
        remarks.append(f"{_count(upright)} read upright, as EXIF asks: the masks have that size")
    if stored:
        remarks.append(f"{_count(stored)} read as stored, against EXIF: the masks have that size")
    if not both:
        return "stored", remarks
    if asked.orientation is None and upright and stored:
        raise BadData(
            f"EXIF turns {both[0]} and the mask fits both ways, and of the other photos some masks "
            f"are upright ({upright[0]}) and some as stored ({stored[0]}): say which these are "
            "with --orientation upright or stored"
        )
    decided = asked.orientation or ("stored" if stored else "upright")
    reason = {
        (True, "upright"): "as asked",
        (True, "stored"): "against EXIF, as asked",
        (False, "upright"): "as EXIF asks: masks are drawn on photos as viewers show them "
        "(--orientation stored if these were not)",
        (False, "stored"): "against EXIF: so are the masks whose size tells "
        "(--orientation upright if these are not)",
    }[asked.orientation is not None, decided]
    how = "upright" if decided == "upright" else "as stored"
    return decided, [*remarks, f"{_count(both)} read {how}, {reason}"]


def _count(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more photos are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"


def _found(rows: Mapping[str, Sequence[IndexRow]]) -> list[str]:
    """Return a sentence for each kind of remark of the images."""
    found: dict[str, list[str]] = {}
    for split, of_split in rows.items():
        for row in of_split:
            for remark in row.remarks:
                found.setdefault(remark.what, []).append(f"{remark.detail} of {split}/{row.id}")
    return [f"{what}: {len(where)}, the first is {where[0]}" for what, where in found.items()]
