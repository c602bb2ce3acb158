"""Describe a stored dataset: its classes, its splits and the digests of their files.

These documents are all that planning needs of a dataset. This module therefore imports no library
for arrays or images.
"""

import hashlib
import json

from training.config import Document


class StoredFile(Document):
    """A file, named by its content."""

    sha256: str
    bytes: int


class Shard(StoredFile):
    """An Arrow IPC file with the columns id, image and mask, the bytes of original files."""

    rows: int


class SplitManifest(Document):
    """The files of one split."""

    index: StoredFile
    shards: tuple[Shard, ...]
    rows: int
    content: str  # digest of the classes and the rows, however divided among files


class Manifest(Document):
    """A dataset: its classes and the files of its splits.

    The id of a class is its position in `classes` + 1; 0 is background and 255 is void.
    """

    format: int = 1
    classes: tuple[str, ...]
    splits: dict[str, SplitManifest]


def json_digest(value: object) -> str:
    """Return the sha256 of a value's compact JSON, in hex."""
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
