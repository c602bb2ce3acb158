"""Read which images a split has, from a list as datasets and repositories ship them.

A line names a photo: by its id, with an ending, or with folders before it. Further columns may name
its mask, or hold what is of no use here. What a line means is decided by the photos that there are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from training.data.file_index import (
    MASK_ENDINGS,
    FileIndex,
    is_litter,
    same_spelling,
    without_ending,
)
from training.data.source import BadData
from training.data.text_files import (
    Line,
    begins_as_heading,
    guessed_encoding,
    is_heading,
    read_lines,
    split_columns,
)

JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")  # they hold no class values


class Listed(NamedTuple):
    """An image of a split."""

    id: str
    mask: str | None = None  # as the list names it, where it does


class SplitList(NamedTuple):
    """The images of a split, and what of the list was not used."""

    images: list[Listed]
    remarks: list[str]


def read_split_list(path: Path, photos: FileIndex) -> SplitList:
    """Return the images of a list, in its order.

    Args:
        path: The list, one image a line.
        photos: The photos that it can name.

    Raises:
        BadData: The list cannot be read, a line can mean several photos, or no line names a photo
            that there is.
    """
    lines = read_lines(path, is_name=lambda text: _whole(text) in photos)
    lines = [line for line in lines if not is_litter(_last_part(line))]
    images = []
    unused: list[Line] = []
    unknown: list[Line] = []
    for line in lines:
        listed = _find(line, path, photos)
        if listed is None:
            if line is lines[0] and (is_heading(line.text) or begins_as_heading(line.text)):
                continue
            unknown.append(line)
            listed = Listed(_guess(line, photos))
        elif listed.mask is None and _has_more(line, listed.id):
            unused.append(line)
        images.append(listed)
    if photos.names and len(unknown) == len(images) > 1:
        first = unknown[0]
        encoding = guessed_encoding(path)
        advice = "give one photo per line, by its name"
        if encoding:
            advice += f"; it is not UTF-8 and was read as {encoding}: if its letters are wrong, "
            advice += "save it as UTF-8"
        raise BadData(
            f"none of the {len(images)} lines of the list {path} names a photo in "
            f"{photos.folder}: line {first.number} is {first.text[:80]!r}, and the photos are "
            f"{', '.join(list(photos.names)[:3])} and so on; {advice}"
        )
    return SplitList(images, _remarks(path, unused))


def place_masks(
    images: Sequence[Listed], roots: Sequence[Path], masks: FileIndex
) -> dict[str, Path]:
    """Return the mask of each image whose list names one.

    Args:
        images: The images of the list.
        roots: Folders that the list's paths may be relative to.
        masks: Where a mask is looked for whose own folder is not there.
    """
    is_folder: dict[Path, bool] = {}
    placed = {}
    for image in images:
        if image.mask is None:
            continue
        for path in _possible_places(image.mask, roots):
            if path.parent not in is_folder:
                is_folder[path.parent] = path.parent.is_dir()
            if is_folder[path.parent]:
                placed[image.id] = path
                break
        else:
            found = masks.find(image.mask)
            last = image.mask.replace("\\", "/").rpartition("/")[2]
            placed[image.id] = masks.path(found[0]) if found else masks.folder / last
    return placed


def _possible_places(named: str, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield where a mask with a folder before it may lie, the longest path first."""
    path = Path(named.replace("\\", "/"))
    if path.is_absolute():
        yield path
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for first in range(len(parts) - 1):
        for root in roots:
            yield root.joinpath(*parts[first:])


def _find(line: Line, path: Path, photos: FileIndex) -> Listed | None:
    """Return the image that a line names, None if it names no photo that there is."""
    if _whole(line.text) in photos:
        return Listed(_whole(line.text))
    columns = _columns(line)
    found = [photos.find(column) for column in columns]
    if not any(found):
        found = [photos.find(line.text)]  # a path with blanks in it
        columns = [line.text]
    meant = list(dict.fromkeys(id for ids in found for id in ids))
    if len(meant) > 1:
        raise BadData(
            f"line {line.number} of the list {path}, {line.text[:80]!r}, can mean the photos "
            f"{' and '.join(meant[:3])}: give one photo per line, with its subfolder"
        )
    if not meant:
        return None
    others = [column for column, ids in zip(columns, found, strict=True) if not ids]
    same = [column for column, ids in zip(columns, found, strict=True) if ids][1:]
    masks = [column for column in same + others if _names_mask(column)]
    return Listed(meant[0], masks[0] if masks else None)


def _has_more(line: Line, id: str) -> bool:
    """Return whether columns follow the photo's name."""
    return _whole(line.text) != id and len(_columns(line)) > 1


def _whole(text: str) -> str:
    """Return the id of a line that holds nothing but a photo's name, perhaps with blanks in it."""
    return same_spelling(without_ending(text))


def _columns(line: Line) -> list[str]:
    return split_columns(line.text) or [line.text]


def _names_mask(column: str) -> bool:
    ending = column[column.rfind(".") :].lower()
    return ending in MASK_ENDINGS and ending not in JPEG_ENDINGS


def _guess(line: Line, photos: FileIndex) -> str:
    """Return the id that a line without a photo was meant to name, for the message about it."""
    first = _columns(line)[0].replace("\\", "/").lstrip("/")
    return without_ending(first.removeprefix(f"{photos.folder.name}/"))


def _last_part(line: Line) -> str:
    return _columns(line)[0].replace("\\", "/").rpartition("/")[2]


def _remarks(path: Path, unused: Sequence[Line]) -> list[str]:
    if not unused:
        return []
    first = unused[0]
    return [
        f"{path.name}: what stands behind the photo's name is passed over in {len(unused)} lines, "
        f"such as line {first.number}, {first.text[:60]!r}"
    ]
