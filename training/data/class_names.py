"""Read the names of a dataset's own classes.

Masks hold numbers, and nothing in them says what the numbers mean. The names come from a file with
one name per line, as people and annotation tools write it: plain, with numbers, with background, or
with colours (`cat:128,0,0::`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from training.config import VOID, InputError
from training.data.file_index import FOREIGN_ENDINGS, PHOTO_ENDINGS
from training.data.source import BadData
from training.data.text_files import Line, guessed_encoding, is_heading, read_lines

# Files of these names are looked for in a dataset's folder.
FILE_NAMES = ("classes.txt", "labels.txt", "labelmap.txt", "names.txt", "class_names.txt")
UNNAMEABLE = re.compile(r"[,{}\[\]]")  # --groups could not name a class with these
BACKGROUND_NAMES = {"background", "_background_", "__background__", "bg", "unlabeled", "unlabelled"}
VOID_NAMES = {"__ignore__", "ignore", "void"}
RGB = r"\d{1,3}\s*[\s,;]\s*\d{1,3}\s*[\s,;]\s*\d{1,3}"
COLOUR_LAST = re.compile(rf"^(?P<name>.*?\D)\s*[\s,;:=]\s*{RGB}\s*(:.*)?$")
COLOUR_FIRST = re.compile(rf"^{RGB}\s*[\s,;:=]\s*(?P<name>\D.*)$")
NUMBER_FIRST = re.compile(r"^(?P<number>\d+)\s*[\s,;:=.)]\s*(?P<name>\S.*)$")
NUMBER_LAST = re.compile(r"^(?P<name>.*\S)\s*[\s,;:=]\s*(?P<number>\d+)$")


class ClassNames(NamedTuple):
    """The classes of a dataset, and what to tell the person who ingests it."""

    names: tuple[str, ...]
    remarks: list[str]


class Entry(NamedTuple):
    """A line of a file of class names."""

    name: str
    number: int | None
    line: int


def parse_classes(given: Sequence[str], base: Sequence[str] = ()) -> ClassNames:
    """Return the class names that an option gives: a file, or names.

    Args:
        given: The option's words: `names.txt`, `cat,dog`, or `cat, dog` with blanks after commas.
        base: Classes that the word `voc` stands for.

    Raises:
        BadData: The file cannot be read, or its lines are not names of classes.
        InputError: The names cannot be used.
    """
    if base and [word.strip().lower() for word in given] == ["voc"]:
        return ClassNames(tuple(base), [])
    has_commas = any("," in word for word in given)
    if len(given) == 1:
        at_home = given[0].startswith("~/")  # other names may begin with ~
        path = Path(given[0]).expanduser() if at_home else Path(given[0])
        if path.is_file() or (not has_commas and re.search(r"[/\\]|\.\w+$", given[0])):
            return read_classes(path)
    names = " ".join(given).split(",") if has_commas else given
    entries = [Entry(name.strip(), None, 0) for name in names if name.strip()]
    return ClassNames(_checked(entries, "--classes"), [])


def find_classes(*folders: Path) -> Path | None:
    """Return the file of class names in some folders, None if there is none.

    Raises:
        BadData: There are several.
    """
    places = [folder / name for folder in dict.fromkeys(folders) for name in FILE_NAMES]
    found = [path for path in places if path.is_file()]
    if len(found) > 1:
        files = " and ".join(map(str, found))
        raise BadData(f"{files} may both name the classes: say which, as --classes FILE")
    return found[0] if found else None


def read_classes(path: Path) -> ClassNames:
    """Return the class names of a file, in the order of their numbers in masks: 1, 2, ...

    Background, number 0, may stand first, and void first or last; they are no classes.

    Raises:
        BadData: The file cannot be read, or a line is not the name of a class.
    """
    lines = read_lines(path, "list of classes")
    if lines and is_heading(lines[0].text):
        lines = lines[1:]
    if len(lines) == 1 and "," in lines[0].text and _without_colour(lines[0].text) == lines[0].text:
        names = [name.strip() for name in lines[0].text.split(",") if name.strip()]
        entries = [Entry(name, None, 1) for name in names]
    else:
        entries = _entries(lines, path)
    names = _checked(entries, str(path))
    return ClassNames(names, _remarks(path, entries, names))


def shown_names(values: Sequence[object]) -> str:
    """Return a few names or numbers for people."""
    shown = ", ".join(map(str, values[:6]))
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown or "none"


def _remarks(path: Path, entries: Sequence[Entry], names: Sequence[str]) -> list[str]:
    """Return what was guessed while the file was read."""
    remarks = []
    encoding = guessed_encoding(path, "list of classes")
    if encoding:
        remarks.append(
            f"{path} is not UTF-8 and is read as {encoding}, in which the classes are "
            f"{shown_names(names)}: save it as UTF-8 if they are misspelt"
        )
    lines = [entry.line for entry in entries]
    if lines != sorted(lines):
        remarks.append(
            f"the classes of {path} are in the order of the numbers beside them: "
            f"{shown_names(names)}"
        )
    return remarks


def _entries(lines: Sequence[Line], path: Path) -> list[Entry]:
    """Return the names of the lines, with their numbers if all lines have one."""
    texts = [Line(line.number, _without_colour(line.text)) for line in lines]
    for pattern in (NUMBER_FIRST, NUMBER_LAST):
        matches = [pattern.match(line.text) for line in texts]
        found = [
            Entry(match["name"].strip("\"' "), int(match["number"]), line.number)
            for match, line in zip(matches, texts, strict=True)
            if match
        ]
        distinct = len({entry.name for entry in found}) == len(found)
        if found and len(found) == len(texts) and distinct:
            return sorted(found, key=lambda entry: entry.number or 0)
        if pattern is NUMBER_FIRST and 2 * len(found) > len(texts):
            odd = next(line for match, line in zip(matches, texts, strict=True) if match is None)
            raise BadData(
                f"line {odd.number} of {path}, {odd.text[:60]!r}, has no number, and others have: "
                "give every class its number, or none"
            )
    return [Entry(line.text.strip("\"' "), None, line.number) for line in texts]


def _without_colour(text: str) -> str:
    """Return the name of a line with a colour, such as `cat:128,0,0::` or `cat 128 0 0`."""
    match = COLOUR_LAST.match(text) or COLOUR_FIRST.match(text)
    return match["name"].strip(" ,;:=") if match else text


def _checked(entries: list[Entry], where: str) -> tuple[str, ...]:
    """Return the names without background and void. Raise BadData for what is no class."""
    numbered = entries[0].number is not None if entries else False
    if entries and (entries[-1].name.lower() in VOID_NAMES or entries[-1].number == VOID):
        entries = entries[:-1]
    if entries and entries[0].name.lower() in VOID_NAMES:
        entries = entries[1:]
    if entries and entries[0].name.lower() in BACKGROUND_NAMES and not entries[0].number:
        entries = entries[1:]
    if not entries:
        raise BadData(
            f"{where} names no class: give one name per line, in the order of their "
            "numbers in masks"
        )
    for place, entry in enumerate(entries, start=1):
        at = f"line {entry.line} of {where}" if entry.line else where
        if numbered and entry.number != place:
            raise BadData(
                f"{at} gives {entry.name!r} the number {entry.number} where {place} comes next: "
                "number the classes 1, 2, ... as in the masks; 0 is background"
            )
        if entry.name.lower() in BACKGROUND_NAMES | VOID_NAMES:
            raise BadData(
                f"{at} is {entry.name!r}, which is no class: background is 0 and void 255 in "
                "masks; take the line out, or put background first"
            )
        if entry.name.startswith("- ") or entry.name.endswith(":"):
            raise BadData(
                f"{at}, {entry.name[:60]!r}, is YAML: give one name per line, without marks"
            )
        if entry.name.lower().endswith((*PHOTO_ENDINGS, *FOREIGN_ENDINGS)):
            raise BadData(
                f"{at}, {entry.name[:60]!r}, is a photo's name: give the names of the classes, one "
                "per line, or another file as --classes FILE"
            )
        if UNNAMEABLE.search(entry.name):
            raise BadData(
                f"{at}, {entry.name[:60]!r}, is no class name: give one name per line without "
                "commas and brackets, since commas separate names in --groups"
            )
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{where} names the class {twice!r} twice: each class has one number")
    return tuple(names)
