"""Define the protocol of a dataset's source, its samples and its errors.

A source names its classes and splits, and lists the ids of a split in the dataset's own order. It
returns each image with its mask as the bytes of their files. `training.data.validation` checks the
bytes, once.
"""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from training.config import InputError


class BadData(InputError):
    """A dataset is not as it must be. The message says what is wrong, where, and what to do."""


class LeftOut(Exception):
    """The image is not part of the split, although it is listed. Only its mask shows this."""


class Sample(NamedTuple):
    """One image and its mask, as the bytes of their files."""

    id: str
    image: bytes  # JPEG or PNG
    mask: bytes  # PNG with a palette or 8-bit gray: 0 background, class ids, 255 void


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


def file_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Args:
        path: The file.
        what: How the error message calls it, such as "mask".

    Raises:
        BadData: The file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadData(
            f"the {what} {path} does not exist; add it, or take the id out of the list"
        ) from None
    except OSError as error:
        raise BadData(
            f"the {what} {path} cannot be read ({error.strerror or error}): "
            "check its rights and its disk"
        ) from None
