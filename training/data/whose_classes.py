"""Decide whether a folder in VOC's layout holds VOC's own classes.

Many tools write VOC's layout for any classes, with VOC's colours. Values 1, 2, 3 of a stranger's
masks must not become aeroplane, bicycle and bird.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.config import BACKGROUND, VOID
from training.data.class_names import (
    ClassNames,
    find_classes,
    parse_classes,
    read_classes,
    shown_names,
)
from training.data.reading import BY_VALUE, voc_palette
from training.data.source import BadData, file_bytes
from training.data.transforms import decode_mask
from training.data.voc import VOC_CLASSES, Voc

VOC_ID = re.compile(r"20(0[7-9]|1[0-2])_\d{6}")
# Masks of each split that are looked at where ids prove nothing.
SAMPLE = 50
# From this number of classes on, masks may prove that their numbers are VOC's.
ENOUGH_CLASSES = 5


def voc_class_names(source: Voc, given: Sequence[str] | None) -> ClassNames:
    """Return the class names of a folder in VOC's layout.

    They are those that are given, or those of a file in the folder, or VOC's where its ids are
    VOC's (2007_000032) or its masks number classes as only VOC does.

    Args:
        source: The folder.
        given: The words of an option: a file, names, or `voc`.

    Raises:
        BadData: It cannot be told whose classes they are, or the names cannot be used.
    """
    if given:
        return parse_classes(given, VOC_CLASSES)
    has_voc_ids = _has_voc_ids(source)
    file = find_classes(source.root)
    if file:
        names, remarks = read_classes(file)
        if has_voc_ids and names != VOC_CLASSES:
            raise BadData(
                f"{file} names {shown_names(names)}, and the ids are VOC's: say whose classes "
                f"they are, as --classes {file} or --classes voc"
            )
        said = f"the classes are those of {file}: {shown_names(names)}"
        return ClassNames(names, [said, *remarks])
    values = _values(source)
    if has_voc_ids and not values:
        return ClassNames(VOC_CLASSES, [])
    shown = [VOC_CLASSES[value - 1] for value in values if value <= len(VOC_CLASSES)]
    remark = (
        f"the masks' values {shown_names(values)} are read as VOC's classes {shown_names(shown)}; "
        "if they are your own, name them with --classes"
    )
    if has_voc_ids:
        return ClassNames(VOC_CLASSES, [remark] if _counts_up(values) else [])
    # A value that is no class of VOC in a few images is a fault of theirs, which their check names.
    if _only_voc_numbers([value for value in values if value <= len(VOC_CLASSES)]):
        return ClassNames(VOC_CLASSES, [remark])
    held = f"the values {shown_names(values)}" if values else "no value that can be read"
    meaning = f", which would be {shown_names(shown)} in VOC" if shown else ""
    raise BadData(
        f"nothing says that {source.root} has VOC's classes: its ids ({_first_id(source)}) are not "
        f"VOC's, and its masks hold {held}{meaning}; name its classes in "
        "their order with --classes names.txt or --classes a,b,c, or give --classes voc"
    )


def _has_voc_ids(source: Voc) -> bool:
    ids = [id for split in source.splits for id in source.ids(split)]
    return bool(ids) and all(VOC_ID.fullmatch(id) for id in ids)


def _first_id(source: Voc) -> str:
    return next((id for split in source.splits for id in source.ids(split)), "there are none")


def _values(source: Voc) -> list[int]:
    """Return the classes' values in some masks of each split; none where no mask can be read."""
    found: set[int] = set()
    for split in source.splits:
        ids = source.ids(split)
        for id in ids[:: max(1, len(ids) // SAMPLE)]:
            found |= _values_of_mask(source.files(split, id)[1])
    return sorted(found - {BACKGROUND, VOID})


def _values_of_mask(path: Path) -> set[int]:
    """Return the class ids of a mask by value or else by VOC's colours, none if it has neither."""
    for reading in (BY_VALUE, voc_palette(len(VOC_CLASSES))):
        try:
            return set(np.unique(decode_mask(file_bytes(path, "mask"), reading)).tolist())
        except BadData:
            # The check of each image says why.
            continue
    return set()


def _counts_up(values: Sequence[int]) -> bool:
    """Return whether the values are 1, 2, 3 ... and fewer than VOC's, as classes of one's own."""
    return 0 < len(values) < len(VOC_CLASSES) and values[-1] == len(values)


def _only_voc_numbers(values: Sequence[int]) -> bool:
    """Return whether nobody but VOC would number classes so.

    Classes of one's own are numbered 1, 2, 3 ... without gaps. A part of VOC has gaps.
    """
    return len(values) >= ENOUGH_CLASSES and values[-1] >= 2 * len(values)


def own_class_names(given: Sequence[str] | None, *folders: Path) -> ClassNames:
    """Return the class names that are given, or those of a file in one of the folders.

    Raises:
        BadData: There are none, or they cannot be used.
    """
    if given:
        return parse_classes(given, VOC_CLASSES)
    file = find_classes(*folders)
    if file is None:
        raise BadData(
            "nothing names the classes: give them in the order of their numbers in the masks, as "
            "--classes names.txt (one name per line) or --classes a,b,c"
        )
    names, remarks = read_classes(file)
    said = f"the classes are those of {file}: {shown_names(names)}"
    return ClassNames(names, [said, *remarks])
