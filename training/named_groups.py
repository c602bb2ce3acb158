"""Read class groups as a person writes them: `cat,chair cow,dog`.

Commas separate the classes of one step, and blanks separate steps. Blanks after commas and names
with blanks in them make a text ambiguous. It is read where only one reading is possible.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from training.config import InputError

Groups = tuple[tuple[str, ...], ...]


def named_groups(words: Sequence[str], classes: Sequence[str]) -> Groups:
    """Return the class names of each step.

    A name that the dataset does not have is returned as it is; whoever looks it up refuses it.

    Args:
        words: The words of an option: `cat,chair` and `cow,dog`, or `cat,`, `chair`, `cow,`,
            `dog`, or all of them as one text.
        classes: The names that the dataset has.

    Raises:
        InputError: The words can be read in several ways.
    """
    known = frozenset(classes)
    divided = [_divide(text, known) for text in _join_at_commas(words)]
    for word in words:
        if len(words) > 1 and len(_divide(word, known)) > 1:
            raise InputError(
                f"{word!r} in --groups is one word of several and has the classes of several "
                "steps: separate the classes of a step by commas, as in cat,chair cow,dog"
            )
    return tuple(filter(None, chain.from_iterable(divided)))


def _join_at_commas(words: Sequence[str]) -> list[str]:
    """Return the words, joined where a comma stands between two: `cat,` and `chair`."""
    joined: list[str] = []
    for word in words:
        if joined and (joined[-1].endswith(",") or word.startswith(",")):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    tight = next((word for word in words if "," in word.strip(", ")), None)
    if len(joined) < len(words) and tight:
        split_word = next(text for text in joined if " " in text and "," in text)
        raise InputError(
            f"--groups has blanks after some commas ({split_word!r}) and none after others "
            f"({tight!r}): separate the classes of a step by commas alone, and steps by blanks, "
            "as in cat,chair cow,dog"
        )
    return joined


def _divide(text: str, classes: frozenset[str]) -> list[tuple[str, ...]]:
    """Return the groups of one text, which blanks between two class names divide."""
    groups: list[list[str]] = [[]]
    for item in text.split(","):
        first, *later = _names(" ".join(item.split()), classes)
        groups[-1].append(first)
        groups += [[name] for name in later]
    return [tuple(filter(None, group)) for group in groups]


def _names(item: str, classes: frozenset[str]) -> list[str]:
    """Return the class names that stand in a text without commas, with blanks between them."""
    if item in classes or " " not in item:
        return [item]
    readings = list(_readings(item.split(" "), classes))
    if len(readings) > 1:
        ways = " or ".join(",".join(reading) for reading in readings[:2])
        raise InputError(f"{item!r} in --groups can mean the classes {ways}: put commas between")
    return readings[0] if readings else [item]


def _readings(words: Sequence[str], classes: frozenset[str]) -> Iterator[list[str]]:
    """Yield each way to read words as a row of class names."""
    if not words:
        yield []
    for count in range(1, len(words) + 1):
        name = " ".join(words[:count])
        if name in classes:
            for rest in _readings(words[count:], classes):
                yield [name, *rest]
