"""Find photos and masks in folders, by their names without the ending.

A photo is a photo whichever ending it has, in either case. What systems and viewers leave in
folders is passed over: hidden files, `Thumbs.db`, `desktop.ini`.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from training.data.source import BadData

# Endings of the formats that training decodes.
PHOTO_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff",
)  # fmt: skip
# PNG comes first: where there are several files, it is the mask.
MASK_ENDINGS = (".png", *(ending for ending in PHOTO_ENDINGS if ending != ".png"))
# Photos that are not read; a folder without others is told what to do.
FOREIGN_ENDINGS = (".heic", ".heif", ".avif", ".gif", ".jp2", ".dng", ".cr2", ".nef", ".arw")
LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
LITTER_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


def is_litter(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a system or viewer.

    Examples are `._a.jpg`, `.DS_Store`, `Thumbs.db` and `__MACOSX`.
    """
    return name.startswith(".") or name.lower() in LITTER | LITTER_FOLDERS


def same_spelling(name: str) -> str:
    """Return a name in the form in which names are compared.

    A Mac writes letters with accents as two characters, other systems as one.
    """
    return unicodedata.normalize("NFC", name)


def shown_name(name: str | os.PathLike[str]) -> str:
    """Return a file's name with `\\x..` for its bytes that are not UTF-8, as JSON can hold it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def without_ending(name: str, endings: Iterable[str] = PHOTO_ENDINGS) -> str:
    """Return a name without its ending, if that is one of `endings` in either case.

    Both endings of `a.jpg.png` go: some tools name a mask so.
    """
    stem, ending = os.path.splitext(name)
    return without_ending(stem, endings) if ending.lower() in endings else name


class IdFinder:
    """Finds the ids that names of a list can mean.

    Args:
        ids: The ids that there are.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = {same_spelling(id): id for id in ids}
        # By the last part of their paths, as it is written and in small letters.
        self._by_last_part: dict[str, list[str]] = {}
        self._by_letters: dict[str, list[str]] = {}
        for spelling, id in self._ids.items():
            last = spelling.rpartition("/")[2]
            self._by_last_part.setdefault(last, []).append(id)
            self._by_letters.setdefault(last.casefold(), []).append(id)

    def knows(self, text: str) -> bool:
        """Return whether a text is an id, perhaps with an ending."""
        return same_spelling(without_ending(text)) in self._ids or same_spelling(text) in self._ids

    def find(self, name: str) -> list[str]:
        """Return the ids that a name can mean: one, none, or several.

        The name may have an ending, folders that lead to the photos, lack their subfolders, or
        differ in capital letters. It may be an address of the web, with `%20` and a query.
        """
        # A # may be a part of a file's name, of which only an address of the web leaves no doubt.
        path = re.split("[?#]" if "://" in name else "[?]", name)[0]
        return self._find(name) or self._find(unquote(path))

    def _find(self, name: str) -> list[str]:
        parts = same_spelling(name.replace("\\", "/")).split("/")
        parts = [part for part in parts if part not in ("", ".")]
        for first in range(len(parts)):
            below = "/".join(parts[first:])
            for spelling in (below, without_ending(below, MASK_ENDINGS)):
                if spelling in self._ids:
                    return [self._ids[spelling]]
        if not parts:
            return []
        last = parts[-1]
        bare = without_ending(last, MASK_ENDINGS)
        known = self._by_last_part
        return known.get(last) or known.get(bare) or self._by_letters.get(bare.casefold()) or []


class FileIndex:
    """The photos or masks of a folder and its subfolders, by id.

    An id is the path below the folder, without the ending and with `/`.

    Args:
        folder: The folder; one that does not exist holds nothing.
        endings: Those to find. Where an id has several files, the first ending's is taken if it is
            `preferred`.
        preferred: An ending that wins over others.
    """

    def __init__(
        self, folder: Path, endings: tuple[str, ...] = PHOTO_ENDINGS, preferred: str | None = None
    ) -> None:
        self.folder = folder
        self.endings = endings
        self.preferred = preferred
        self.names: dict[str, list[str]] = {}  # id -> paths below the folder
        self.litter = 0  # files that were passed over
        self.foreign: Counter[str] = Counter()  # endings of photos that are not read
        self.others: Counter[str] = Counter()  # endings of other files
        for name in self._walk():
            ending = os.path.splitext(name)[1].lower()
            if ending in endings:
                self._check_encoding(name)
                id = same_spelling(without_ending(name, endings))
                self.names.setdefault(id, []).append(name)
            elif ending in FOREIGN_ENDINGS:
                self.foreign[ending] += 1
            elif ending:
                self.others[ending] += 1
        self._finder: IdFinder | None = None
        self._by_letters: dict[str, list[str]] | None = None

    def find(self, name: str) -> list[str]:
        """Return the ids that a name of a list can mean: one, none, or several."""
        if self._finder is None:
            self._finder = IdFinder(self.names)
        return self._finder.find(name)

    def alike(self, id: str) -> list[str]:
        """Return the ids that differ from an id in nothing but capital letters."""
        if self._by_letters is None:
            self._by_letters = {}
            for name in self.names:
                self._by_letters.setdefault(name.casefold(), []).append(name)
        return self._by_letters.get(id.casefold(), [])

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, id: str) -> bool:
        return id in self.names

    def path(self, id: str) -> Path:
        """Return the file of an id. If there is none, it is the path where one was expected."""
        names = self._candidates(id)
        return self.folder / (names[0] if names else f"{id}{self.endings[0]}")

    def check(self, id: str, what: str) -> None:
        """Raise BadData if several files stand for an id."""
        names = self._candidates(id)
        if len(names) > 1:
            raise BadData(
                f"{len(names)} {what}s stand for {id!r}: {' and '.join(names)} in {self.folder}; "
                "take all but one away"
            )

    def _candidates(self, id: str) -> list[str]:
        names = self.names.get(id, [])
        if self.preferred:
            first = [name for name in names if name.lower().endswith(self.preferred)]
            return first or names
        return names

    def _walk(self) -> Iterable[str]:
        """Return the paths of all files below the folder, sorted, without litter.

        Folders behind links are read, each once.
        """
        found = []
        seen: set[str] = set()
        for above, folders, files in os.walk(self.folder, followlinks=True, onerror=self._refuse):
            seen.add(os.path.realpath(above))
            folders[:] = [
                name
                for name in folders
                if not is_litter(name) and os.path.realpath(os.path.join(above, name)) not in seen
            ]
            relative = os.path.relpath(above, self.folder).replace(os.sep, "/")
            prefix = "" if relative == "." else f"{relative}/"
            kept = [name for name in files if not is_litter(name)]
            self.litter += len(files) - len(kept)
            found += [prefix + name for name in kept]
        return sorted(found)

    def _check_encoding(self, name: str) -> None:
        """Raise BadData for a name that no index and no JSON file could hold."""
        if not name.isascii() and shown_name(name) != name:
            raise BadData(
                f"the file {shown_name(name)} in {self.folder} has a name that is not UTF-8 (\\x.. "
                "stands for what is not): rename it"
            )

    def _refuse(self, error: OSError) -> None:
        """Raise BadData for a folder that cannot be read; one that is missing holds nothing."""
        if not isinstance(error, FileNotFoundError):
            reason = error.strerror or error
            raise BadData(f"the folder {error.filename} cannot be read ({reason})") from None


def mask_id(name: str, masks: FileIndex, photo: str, photos: FileIndex) -> str:
    """Return the id of a photo's mask: its name, or else the only one in other capital letters.

    Args:
        name: What the mask is to be called.
        masks: Where it is looked for.
        photo: The id of the photo.
        photos: The photos; of several that differ in capitals alone, none may take another's mask.
    """
    if name in masks or len(photos.alike(photo)) > 1:
        return name
    alike = masks.alike(name)
    return alike[0] if len(alike) == 1 else name


def litter_remark(indexes: Iterable[FileIndex]) -> list[str]:
    """Return the sentence that says how many files were passed over, if any were."""
    count = sum(index.litter for index in indexes)
    if not count:
        return []
    files = "1 hidden or system file was" if count == 1 else f"{count} hidden or system files were"
    return [f"{files} passed over (such as ._*, .DS_Store, Thumbs.db)"]
