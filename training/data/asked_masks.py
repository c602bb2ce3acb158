"""Read what the person who ingests says of masks: the options `--palette` and `--values`."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from training.config import BACKGROUND, VOID
from training.data.class_names import BACKGROUND_NAMES, VOID_NAMES
from training.data.reading import BY_BRIGHTNESS, BY_VALUE, Reading, voc_palette
from training.data.source import BadData
from training.data.text_files import is_heading, read_lines

NAMED = {"indices": BY_VALUE, "gray": BY_BRIGHTNESS, "grey": BY_BRIGHTNESS}
COLOUR = r"(?P<red>\d{1,3})[\s,;]+(?P<green>\d{1,3})[\s,;]+(?P<blue>\d{1,3})"
COLOUR_FIRST = re.compile(rf"^{COLOUR}[\s,;:=]+(?P<name>.*)$")
COLOUR_LAST = re.compile(rf"^(?P<name>.*?)[\s,;:=]+{COLOUR}(:.*)?$")
MARKS = " \t:;,=\"'"  # around a name
LARGEST_VALUE = 2**16 - 1  # of a mask of 16 bits


def asked_masks(
    palette: str | None, values: Sequence[str], classes: Sequence[str]
) -> Reading | None:
    """Return how masks are to be read, None if nothing is said.

    Args:
        palette: `indices`, `gray`, `voc`, or a file with a name and a colour on each line.
        values: Such as 255=crack: a number in masks, and the class that it stands for.
        classes: The dataset's class names.

    Raises:
        BadData: They contradict each other, or name something that there is not.
    """
    if palette and values:
        raise BadData("give either --palette or --values: masks are read by colour or by number")
    if values:
        return Reading(masks="values", values=_pairs(values, classes))
    if palette is None:
        return None
    if palette == "voc":
        return voc_palette(len(classes))
    return NAMED.get(palette) or read_palette(Path(palette), classes)


def palette_names(palette: str | None) -> tuple[str, ...] | None:
    """Return the classes that a palette's file names, in its order; None if none is given.

    Raises:
        BadData: The file cannot be read.
    """
    if palette is None or palette == "voc" or palette in NAMED:
        return None
    names = [name for name, _ in _entries(Path(palette))]
    return tuple(name for name in names if name.lower() not in BACKGROUND_NAMES | VOID_NAMES)


def read_palette(path: Path, classes: Sequence[str]) -> Reading:
    """Return the reading of masks in the colours of a file.

    Each line has a name and a colour, as `name 128 0 0`, `128,0,0 name` or `name:128,0,0::` (CVAT's
    labelmap.txt). Background is black unless the file says otherwise.

    Raises:
        BadData: A line cannot be read, a name is no class, a colour stands twice, or a class has
            none.
    """
    ids: dict[tuple[int, int, int], int] = {}
    for name, colour in _entries(path):
        if colour in ids:
            raise BadData(f"the palette {path} gives the colour {colour} twice")
        ids[colour] = _class_id(name, classes, f"the palette {path}")
    if BACKGROUND not in ids.values():
        ids.setdefault((0, 0, 0), BACKGROUND)
    missing = [name for id, name in enumerate(classes, start=1) if id not in ids.values()]
    if missing:
        raise BadData(f"the palette {path} has no colour for {', '.join(missing[:5])}: add it")
    return Reading(masks="colours", colours=tuple((*colour, id) for colour, id in ids.items()))


def _entries(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the name and the colour of each line."""
    lines = read_lines(path, "palette")
    if lines and is_heading(lines[0].text):
        lines = lines[1:]
    return [
        _entry(text, f"line {number} of the palette {path}, {text[:60]!r},")
        for number, text in lines
    ]


def _entry(text: str, where: str) -> tuple[str, tuple[int, int, int]]:
    """Return the name and the colour of a line."""
    found = COLOUR_FIRST.match(text) or COLOUR_LAST.match(text)
    if found:
        name = found["name"].strip(MARKS)
        red, green, blue = (int(found[channel]) for channel in ("red", "green", "blue"))
        if name and max(red, green, blue) <= 255:
            return name, (red, green, blue)
    raise BadData(f"{where} has no name and colour: write red, green and blue, 0 to 255")


def _pairs(values: Sequence[str], classes: Sequence[str]) -> tuple[tuple[int, int], ...]:
    ids: dict[int, int] = {}
    for text in values:
        value, _, name = text.partition("=")
        if not value.strip().isdecimal() or int(value) > LARGEST_VALUE or not name.strip():
            raise BadData(
                f"--values {text}: give a number of the masks and what it stands for, as 255=crack"
            )
        if int(value) in ids:
            raise BadData(f"--values {text}: the number {int(value)} is given twice")
        ids[int(value)] = _class_id(name.strip(), classes, f"--values {text}")
    return tuple(sorted(ids.items()))


def _class_id(name: str, classes: Sequence[str], where: str) -> int:
    """Return the id of a class, background or void by its name."""
    if name in classes:
        return list(classes).index(name) + 1
    if name.lower() in BACKGROUND_NAMES:
        return BACKGROUND
    if name.lower() in VOID_NAMES:
        return VOID
    near = get_close_matches(name, classes, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(classes[:8])}"
    raise BadData(f"{where}: there is no class {name!r}: {advice}, background and void")
