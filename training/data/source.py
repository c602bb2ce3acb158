"""Define the protocol of a dataset's source, its samples and its errors.

A source names its classes and splits, and lists the ids of a split in the dataset's own order. It
returns each image with its mask as the bytes of their files. `training.data.validation` checks the
bytes, once.
"""

import stat
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from training.config import Document, InputError

# What `file_bytes` calls the files of a sample, which a list names.
SAMPLE_FILES = ("image", "mask")


class BadData(InputError):
    """A dataset is not as it must be. The message says what is wrong, where, and what to do."""


class LeftOut(Exception):
    """The image is not part of the split, although it is listed. Only its mask shows this."""


class Remark(Document):
    """What was found in the files of an image that does not keep it from being used."""

    what: str  # in words that are equal for all images of which it is true
    detail: str  # where in this image


class Sample(NamedTuple):
    """One image and its mask, as the bytes of their files."""

    id: str
    image: bytes  # a photo
    mask: bytes  # PNG whose values or colours stand for 0 background, class ids and 255 void
    remarks: tuple[Remark, ...] = ()


class Source(Protocol):
    """A dataset at its origin."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names. The id of a class in masks is its position + 1."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, such as train and val."""
        ...

    def ids(self, split: str) -> list[str]:
        """Return the ids of the split's images, in the dataset's order."""
        ...

    def read(self, split: str, id: str) -> Sample:
        """Read the files of one image. Several threads call it at once.

        Raises:
            BadData: A file is missing or cannot be read.
            LeftOut: The split leaves the image out.
        """
        ...


@runtime_checkable
class FromFiles(Source, Protocol):
    """A source that names the files of each sample, so that a later ingest can skip them."""

    @property
    def recipe(self) -> str:
        """Return what decides a sample besides its files; it changes when `read` changes."""
        ...

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """Return the files that `read` opens, whether they exist or not."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """A source that has something to say of what it found."""

    def remarks(self) -> list[str]:
        """Return sentences for the person who ingests, one for each kind of finding."""
        ...


def file_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Args:
        path: The file.
        what: How the error message calls it, such as "mask".

    Raises:
        BadData: The file is missing or cannot be read.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            # Reading a pipe or a device may never end.
            raise BadData(f"the {what} {path} is a pipe or a device: give a file")
        return path.read_bytes()
    except FileNotFoundError:
        advice = "add it, or take the id out of the list" if what in SAMPLE_FILES else "add it"
        raise BadData(f"the {what} {path} does not exist; {advice}") from None
    except OSError as error:
        raise BadData(
            f"the {what} {path} cannot be read ({error.strerror or error}): "
            "check its rights and its disk"
        ) from None
