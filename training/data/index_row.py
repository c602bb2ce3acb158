"""Say what an index keeps of each row of a shard, and what was seen in its files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from training.config import VOID, Document
from training.data.source import Remark
from training.data.validation import Row, Seen

PLAIN = Seen()


class IndexRow(Document):
    """The entry of the index for a row of a shard.

    `training.data.dataset_writer.INDEX_SCHEMA` explains the fields.
    """

    id: str
    row: int
    width: int
    height: int
    values: tuple[int, ...]
    pixels: tuple[int, ...]
    image_offset: int
    image_bytes: int
    mask_offset: int
    mask_bytes: int
    row_sha256: str
    seen: Seen = Field(default=PLAIN, json_schema_extra=dict[str, Any](legacy=PLAIN))
    remarks: tuple[Remark, ...] = Field(default=(), json_schema_extra=dict[str, Any](legacy=()))


def index_rows(rows: Sequence[Row], offsets: Sequence[tuple[int, int]]) -> tuple[IndexRow, ...]:
    """Return the entries of a shard's rows, whose image and mask begin at these bytes."""
    entries = []
    for number, (row, (image_offset, mask_offset)) in enumerate(zip(rows, offsets, strict=True)):
        values = np.flatnonzero(row.pixels[:VOID])
        entry = IndexRow(
            id=row.sample.id,
            row=number,
            width=row.width,
            height=row.height,
            values=tuple(values.tolist()),
            pixels=tuple(row.pixels[values].tolist()),
            image_offset=image_offset,
            image_bytes=len(row.sample.image),
            mask_offset=mask_offset,
            mask_bytes=len(row.sample.mask),
            row_sha256=row.sha256.hex(),
            seen=row.seen,
            remarks=row.sample.remarks,
        )
        entries.append(entry)
    return tuple(entries)
