"""Where a dataset's original files come from.

A source names its classes and splits, lists the ids of a split in the dataset's own order, and hands out each image with
its mask as the bytes of the original files. What the bytes hold is looked at once, by `training.data.shards.build`.
"""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from training.config import InputError


class BadData(InputError):
    """A dataset is not as it must be. The message says what is wrong, where, and what to do."""


class LeftOut(Exception):
    """The image is whole but no part of the split: what only its mask can tell."""


class Sample(NamedTuple):
    """One image and its mask, as the bytes of their files."""

    id: str
    image: bytes  # JPEG or PNG
    mask: bytes  # PNG with a palette or 8-bit gray: 0 background, class ids, 255 void


class Source(Protocol):
    """A dataset at its origin."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the id of a class in masks is its position + 1."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, such as train and val."""
        ...

    def ids(self, split: str) -> list[str]:
        """Ids of the split's images, in the dataset's order."""
        ...

    def read(self, split: str, id: str) -> Sample:
        """The files of one image; BadData where one is missing, LeftOut where the split does without it. Called by threads."""
        ...


@runtime_checkable
class FromFiles(Source, Protocol):
    """A source that can tell what a sample is made of, so that what was looked at before need not be opened again."""

    @property
    def recipe(self) -> str:
        """What else decides the sample, but for these files: changes whenever `read` makes something else of them."""
        ...

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """The files that `read` opens, there or not."""
        ...


def file_bytes(path: Path, what: str) -> bytes:
    """What the file holds; BadData where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadData(
            f"the {what} {path} does not exist; add it, or take the id out of the list"
        ) from None
    except OSError as error:
        raise BadData(
            f"the {what} {path} cannot be read ({error.strerror or error}): check its rights and its disk"
        ) from None
