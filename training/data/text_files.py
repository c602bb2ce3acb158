"""Read text files as people have them: lists of images, and names of classes.

They come from editors of three systems, with or without a byte order mark, with either kind of line
ends, with comments, and with columns that other programs wrote.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from training.data.source import BadData, file_bytes

# Byte order marks; that of UTF-32 begins with that of UTF-16.
MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
# What stands where a text file was meant, by its first bytes, and what to do about it.
STAND_INS = {
    "version https://git-lfs": "is a pointer of Git LFS: fetch the file with `git lfs pull`",
    "<!doctype": "is a web page: download the file itself",
    "<html": "is a web page: download the file itself",
}

# Words of a heading above columns.
HEADINGS = {
    "image", "images", "img", "photo", "file", "filename", "file_name", "path", "id", "image_id",
    "class_id", "number", "index", "value", "name", "mask", "masks", "label", "labels", "class",
    "classes", "annotation", "segmentation",
}  # fmt: skip

# Encodings of a file that says none, in the order in which they are tried, with the name of those
# that are a guess.
GUESSES = {"utf-8": None, "cp1252": "Windows-1252", "latin-1": "Latin-1"}
# Of a colour, where a heading has all three.
CHANNELS = ({"r", "g", "b"}, {"red", "green", "blue"})


class Line(NamedTuple):
    """A line that says something."""

    number: int  # in the file, from 1
    text: str  # without comment and surrounding blanks


def read_lines(
    path: Path, what: str = "list", is_name: Callable[[str], bool] = lambda text: False
) -> list[Line]:
    """Return the lines of a text file, without blank lines and comments.

    A comment is a line that begins with #, or what follows a # that a blank precedes. UTF-8,
    UTF-16 and UTF-32 are read, and what is none of them as Windows-1252 or Latin-1.

    Args:
        path: The file.
        what: How messages call it, such as "list".
        is_name: Whether a whole line is the name of something that there is, and so no comment.

    Raises:
        BadData: The file is missing, cannot be read, or is no text.
    """
    text = _decode(file_bytes(path, what), path, what)
    lines = []
    # Not str.splitlines, which also cuts at characters that names may hold.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        said = line.strip()
        if not is_name(said):
            said = re.sub(r"(^|\s)#.*", "", said).strip()
        if said:
            lines.append(Line(number, said))
    return lines


def guessed_encoding(path: Path, what: str = "list") -> str | None:
    """Return how a text file is read that says no encoding and is not UTF-8, None for others.

    Raises:
        BadData: The file is missing, or cannot be read.
    """
    data = file_bytes(path, what)
    if b"\x00" in data or any(data.startswith(mark) for mark in MARKS):
        return None
    return GUESSES[_guess(data)]


def split_columns(text: str) -> list[str]:
    """Return the columns of a line: divided by tabs, commas, semicolons or else by blanks."""
    by_mark = [column.strip() for column in re.split(r"[\t,;]", text)]
    columns = by_mark if len(by_mark) > 1 else text.split()
    return [column.strip("\"'") for column in columns if column.strip("\"'")]


def is_heading(text: str) -> bool:
    """Return whether a line is a heading above two columns or more, perhaps of a colour."""
    words = [column.lower() for column in split_columns(text)]
    colour = next((channels for channels in CHANNELS if channels <= set(words)), set[str]())
    others = set(words) - colour
    return len(words) > 1 and bool(others) and others <= HEADINGS


def begins_as_heading(text: str) -> bool:
    """Return whether the first of a line's columns, divided by marks, is the word of a heading."""
    first, *others = re.split(r"[\t,;]", text)
    return bool(others) and first.strip("\"' ").lower() in HEADINGS


def _decode(data: bytes, path: Path, what: str) -> str:
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    if encoding is None and b"\x00" in data:
        encoding = _utf16_without_mark(data)
        if encoding is None:
            raise BadData(f"the {what} {path} is no text: save it as plain text, one entry a line")
    try:
        text = data.decode(encoding or _guess(data))
    except UnicodeDecodeError as error:
        raise BadData(
            f"the {what} {path} is damaged: its first bytes promise {encoding}"
        ) from error
    for start, problem in STAND_INS.items():
        if text[:64].lstrip().lower().startswith(start):
            raise BadData(f"the {what} {path} {problem}")
    return text


def _guess(data: bytes) -> str:
    """Return the first of GUESSES in which the bytes are text. In the last all bytes are."""
    *tried, last = GUESSES
    for encoding in tried:
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return last


def _utf16_without_mark(data: bytes) -> str | None:
    """Return the encoding in which every second byte of plain Latin letters is zero, if any."""
    even = data[::2].count(0)
    odd = data[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > len(data) // 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return None
