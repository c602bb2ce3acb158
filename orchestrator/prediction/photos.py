"""Find the photos that somebody names: a folder, a file, a bucket or an address of the web.

What is hidden is passed over, and so is what no photo is named like. A photo that cannot be read is
found all the same: whoever reads it learns why.
"""

import http.client
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from orchestrator.store.base import NotFound, Store
from orchestrator.store.open import open_store
from training.config import InputError
from training.data.file_index import FOREIGN_ENDINGS, PHOTO_ENDINGS, is_litter, shown_name
from training.data.source import BadData

# Those of formats that are not read, too: whoever names such a photo learns that it is not.
OTHER_ENDINGS = (".dib", ".jpx", ".j2k", ".mpo", ".pbm", ".pgm", ".pnm", ".ppm")
ENDINGS = (*PHOTO_ENDINGS, *FOREIGN_ENDINGS, *OTHER_ENDINGS)
LARGEST_FILE = 1 << 30  # bytes
WEB_SECONDS = 30.0  # without a byte
# What `orchestrator.prediction.output` writes; by the first two a folder of predictions is known.
PROGRESS = "progress.jsonl"
MASKS = "masks"
OVERLAYS = "overlays"
HOLDS_PREDICTIONS = "{} holds predictions, not photos: give the folder of the photos as --images"
FOLDER_WORDS = "give a folder, a file, s3://bucket/folder or https://..."


class Photo(NamedTuple):
    """A photo by its name below what was named, with `/`, and how to read its bytes."""

    name: str
    read: Callable[[], bytes]  # raises BadData, or StoreError where the server fails


@dataclass(frozen=True)
class Found:
    """What was found, sorted by name."""

    photos: tuple[Photo, ...]
    others: tuple[str, ...]  # files that are not named like photos
    predicted: tuple[str, ...] = ()  # folders that hold predictions, which were passed over


def find_photos(images: str, besides: Path | None = None) -> Found:
    """Find photos.

    Args:
        images: A folder with its subfolders, a file, `s3://bucket/folder`, or `https://` of a file.
        besides: A folder that is passed over, because predictions are written there.

    Raises:
        InputError: There is nothing of that name, no photo in it, or predictions.
        StoreError: The bucket cannot be listed.
    """
    scheme = urlsplit(images).scheme.lower() if "://" in images else ""
    if scheme in ("http", "https"):
        return Found((_from_web(images),), ())
    if scheme == "s3":
        return _in_bucket(images)
    if scheme not in ("", "file"):
        raise InputError(f"{images!r} names no photos: {FOLDER_WORDS}")
    path = Path(unquote(urlsplit(images).path)) if scheme else Path(images).expanduser()
    if path.is_dir():
        return _in_folder(images, path, besides)
    if not path.exists():
        raise InputError(f"there is no {images}: {FOLDER_WORDS}")
    return Found((Photo(shown_name(path.name), partial(_read_file, path)),), ())


def _checked(
    images: str, photos: list[Photo], others: list[str], predicted: Sequence[str] = ()
) -> Found:
    """Return what was found. Raise InputError if it is no photo."""
    if not photos:
        names = [*others, *(f"the predictions in {name}" for name in predicted)]
        held = f"it holds {_first(names)}" if names else "it is empty"
        raise InputError(
            f"there is no photo in {images}: {held}; photos are named .jpg, .png, .webp, .tif ..."
        )
    by_name = sorted(photos, key=lambda photo: photo.name)
    return Found(tuple(by_name), tuple(sorted(others)), tuple(sorted(predicted)))


def holds_predictions(folder: Path) -> bool:
    """Return True if `jobs.predict` wrote to a folder."""
    # Unlike a path's own methods, these do not raise for a folder that cannot be read.
    return os.path.isfile(folder / PROGRESS) and os.path.isdir(folder / MASKS)


def _in_folder(images: str, top: Path, besides: Path | None) -> Found:
    if holds_predictions(top):
        raise InputError(HOLDS_PREDICTIONS.format(images))
    photos: list[Photo] = []
    others: list[str] = []
    predicted: list[Path] = []
    for path in _files(top, besides, predicted):
        name = shown_name(path.relative_to(top))
        if path.suffix.lower() in ENDINGS:
            photos.append(Photo(name, partial(_read_file, path)))
        else:
            others.append(name)
    names = [shown_name(path.relative_to(top)) for path in predicted]
    return _checked(images, photos, others, names)


def _files(top: Path, besides: Path | None, predicted: list[Path]) -> Iterator[Path]:
    """Yield what is no folder below a folder, links followed once, without what is hidden.

    Folders of predictions are passed over, too, and added to `predicted`.
    """
    passed_over = {_identity(besides)} if besides and besides.exists() else set()
    seen = {_identity(top)}
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_raise):
        kept: list[Path] = []
        for name in sorted(folders):
            identity = _identity(Path(folder, name))
            if not is_litter(name) and identity not in seen | passed_over:
                seen.add(identity)
                into = predicted if holds_predictions(Path(folder, name)) else kept
                into.append(Path(folder, name))
        folders[:] = [path.name for path in kept]
        yield from (Path(folder, name) for name in names if not is_litter(name))


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    """Raise what `os.walk` would pass over: a folder that cannot be read."""
    raise InputError(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadData("it is no file but a folder, a pipe or a device")
        if status.st_size > LARGEST_FILE:
            raise BadData(f"the file has {status.st_size / 1e9:.1f} GB, which no photo has")
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"the file cannot be read: {error.strerror}") from error


def _in_bucket(uri: str) -> Found:
    """Return the photos below a prefix of a bucket; a prefix that is one object is that alone."""
    parts = urlsplit(uri)
    parent, _, last = parts.path.strip("/").rpartition("/")
    # An object's name may have characters that end the path of a URI elsewhere.
    if last and PurePosixPath(last).suffix.lower() in ENDINGS:
        store = open_store(f"s3://{parts.netloc}/{parent}")
        return Found((Photo(last, partial(_read_object, store, last)),), ())
    store = open_store(uri)
    keys = [key for key in store.list() if key and not key.endswith("/")]
    predicted = _predicted_prefixes(keys)
    if "" in predicted:
        raise InputError(HOLDS_PREDICTIONS.format(uri))
    photos: list[Photo] = []
    others: list[str] = []
    for key in keys:
        hidden = any(map(is_litter, key.split("/")))
        if hidden or any(key.startswith(f"{prefix}/") for prefix in predicted):
            continue
        if PurePosixPath(key).suffix.lower() in ENDINGS:
            photos.append(Photo(key, partial(_read_object, store, key)))
        else:
            others.append(key)
    return _checked(uri, photos, others, sorted(predicted))


def _predicted_prefixes(keys: Sequence[str]) -> set[str]:
    """Return what stands before predictions in the names of objects, such as `trip/predicted`."""
    begun, with_masks = set[str](), set[str]()
    for key in map(PurePosixPath, keys):
        if key.name == PROGRESS:
            begun.add(str(key.parent))
        with_masks.update(str(folder.parent) for folder in key.parents if folder.name == MASKS)
    return {"" if prefix == "." else prefix for prefix in begun & with_masks}


def _read_object(store: Store, key: str) -> bytes:
    try:
        return store.read(key)
    except NotFound as error:
        raise BadData(str(error)) from error
    except ValueError as error:
        raise BadData(f"the object's name cannot be used here: {error}") from error


def _from_web(uri: str) -> Photo:
    """Return the photo at an address. Its name is the last part of the path, without any query."""
    name = PurePosixPath(unquote(urlsplit(uri).path)).name
    is_usable = name.isprintable() and not is_litter(name)
    return Photo(name if name and is_usable else "photo", partial(_fetch, uri))


def _fetch(uri: str) -> bytes:
    parts = urlsplit(uri)
    # Without what may be a secret.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        with urllib.request.urlopen(uri, timeout=WEB_SECONDS) as response:
            return response.read(LARGEST_FILE)
    except urllib.error.HTTPError as error:
        with error:
            raise BadData(f"{shown} answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadData(f"{shown} cannot be fetched ({reason}): check the address") from None


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more
