"""Describe a stored dataset: its classes, its splits and the digests of their files.

These documents are all that planning needs of a dataset. This module therefore imports no library
for arrays or images.
"""

import hashlib
import json
from typing import Any

from pydantic import Field

from training.config import Document
from training.data.reading import AS_STORED, Reading

LAYERED = "train"  # the split that companion layers belong to: no other is trained on


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
    # Images of the source's list that are not among the rows. Unknown, and 0, in manifests written
    # before this was counted.
    left_out: int = Field(default=0, ge=0, json_schema_extra={"legacy": 0})


class Manifest(Document):
    """A dataset: its classes and the files of its splits.

    The id of a class is its position in `classes` + 1; 0 is background and 255 is void.
    """

    format: int = 1
    classes: tuple[str, ...]
    splits: dict[str, SplitManifest]
    reading: Reading = Field(default=AS_STORED, json_schema_extra=dict[str, Any](legacy=AS_STORED))


def json_digest(value: object) -> str:
    """Return the sha256 of a value's compact JSON, in hex."""
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
