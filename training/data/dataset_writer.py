"""Plan the shards of a dataset, and write its indexes and manifest once the shards are written.

Between the two, shards are written by any number of processes on any number of machines
(`training.data.shard_writer`). A split's `content` digest covers the classes and the rows, but not
how they are divided among files. Other shards of the same rows, or a newer version of Arrow, change
no step's identity.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from training.config import VOID
from training.data.agreement import Agreement, agree
from training.data.index_row import IndexRow
from training.data.manifest import Manifest, SplitManifest, StoredFile, json_digest
from training.data.reading import NOTHING_ASKED, Asked, Reading
from training.data.shard_writer import ShardJob, WrittenShard, divide, name_by_digest
from training.data.source import BadData, FromFiles, Source
from training.data.validation import BadRow, BadRows

SHARD_BYTES = 64 * 2**20  # size of a shard, roughly
INDEX_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.uint32()),  # position in the manifest's list of shards
        ("row", pa.uint32()),  # in the shard
        ("width", pa.uint32()),  # pixels
        ("height", pa.uint32()),  # pixels
        ("values", pa.list_(pa.uint8())),  # mask values present, ascending, without void
        ("pixels", pa.list_(pa.uint32())),  # of each of these values
        ("image_offset", pa.uint64()),  # bytes from the start of the shard
        ("image_bytes", pa.uint32()),
        ("mask_offset", pa.uint64()),
        ("mask_bytes", pa.uint32()),
        ("row_sha256", pa.binary(32)),  # sha256 of the sha256 of the image and that of the mask
    ],
    metadata={"stepchain": "1"},
)
# How a row's photo is turned, as EXIF counts. An index in which all are as stored lacks the column.
ORIENTATION = pa.field("orientation", pa.uint8())


class SplitPlan(NamedTuple):
    """How the images of a split are divided among shards."""

    jobs: list[ShardJob]
    listed_twice: list[BadRow]
    images: int  # number of ids in the list, each counted once


class Assembled(NamedTuple):
    """A dataset whose files are written."""

    manifest: Manifest
    bad: list[BadRow]  # rows that were left out
    remarks: list[str]  # what was found and decided, for the person who ingests


def plan_shards(
    source: Source, shard_bytes: int = SHARD_BYTES, asked: Asked = NOTHING_ASKED
) -> dict[str, SplitPlan]:
    """Return the plan of each split; it follows from the source alone, on any machine.

    Raises:
        BadData: The source has more classes than masks can hold, or a split lists no images.
    """
    if len(source.classes) >= VOID:
        raise BadData(
            f"the dataset declares {len(source.classes)} classes; masks have 8 bits, "
            f"which leaves room for {VOID - 1}"
        )
    return {split: _plan_split(source, split, shard_bytes, asked) for split in source.splits}


def _plan_split(source: Source, split: str, shard_bytes: int, asked: Asked) -> SplitPlan:
    listed = Counter(source.ids(split))
    if not listed:
        raise BadData(f"split {split!r} lists no images; leave the split out, or correct its list")
    once = [id for id, count in listed.items() if count == 1]
    twice = [
        BadRow(split=split, id=id, reason="the id is listed twice; take one out of the list")
        for id, count in listed.items()
        if count > 1
    ]
    jobs = list(divide(source, split, once, shard_bytes, asked))
    return SplitPlan(jobs, twice, len(listed))


def assemble_dataset(
    source: Source,
    plans: Mapping[str, SplitPlan],
    done: Mapping[str, WrittenShard],
    folder: Path,
    on_bad: Literal["error", "skip"],
    asked: Asked = NOTHING_ASKED,
) -> Assembled:
    """Write the index of each split, and return the manifest of the dataset.

    Args:
        source: The source that was planned.
        plans: What `plan_shards` returned for it.
        done: What `write_shard` returned for each planned job, by the job's key.
        folder: An existing folder; the indexes are written to it as <sha256>.parquet.
        on_bad: Whether rows that cannot be used are an error or are left out.
        asked: How files are to be read, as it was planned.

    Raises:
        BadRows: Rows cannot be used and `on_bad` is error; it holds all of them.
        BadData: A split has no usable image, or what the files mean must be asked.
    """
    written = {}
    bad = {}
    for split, plan in plans.items():
        written[split] = [done[job.key] for job in plan.jobs]
        bad[split] = _bad_rows(plan, written[split])
    unusable = list(chain.from_iterable(bad.values()))
    if unusable and on_bad == "error":
        raise BadRows(unusable)
    for split, shards in written.items():
        if not any(each.shard for each in shards):
            raise _no_usable_image(split, bad[split])
    rows = {split: _rows(shards) for split, shards in written.items()}
    # A source that makes masks knows what is void in them.
    made = isinstance(source, FromFiles) and not source.recipe.startswith("verbatim")
    agreed = agree(rows, source.classes, asked, masks_are_files=not made)
    splits = {}
    for split, shards in written.items():
        splits[split] = _write_split(
            source.classes, agreed, shards, agreed.turns[split], plans[split].images, folder
        )
    manifest = Manifest(classes=source.classes, splits=splits, reading=agreed.reading)
    return Assembled(manifest, unusable, agreed.remarks)


def _rows(shards: Sequence[WrittenShard]) -> list[IndexRow]:
    return list(chain.from_iterable(each.rows for each in shards))


def _no_usable_image(split: str, bad: Sequence[BadRow]) -> BadData:
    """Return the error of a split without a usable image, which names the first bad row."""
    reason = f"; the first is {bad[0].id}: {bad[0].reason}" if bad else ""
    return BadData(f"split {split!r} has no usable image{reason}")


def _bad_rows(plan: SplitPlan, shards: Sequence[WrittenShard]) -> list[BadRow]:
    bad = list(plan.listed_twice)
    for shard in shards:
        bad += shard.bad
    return bad


def _write_split(
    classes: tuple[str, ...],
    agreed: Agreement,
    shards: Sequence[WrittenShard],
    turns: Sequence[int],
    listed: int,
    folder: Path,
) -> SplitManifest:
    """Write the index of a split, and return its manifest.

    Args:
        classes: Of the dataset.
        agreed: How the dataset's files are read.
        shards: In the split's order.
        turns: How the photo of each row is turned, as EXIF counts.
        listed: Number of images in the source's list.
        folder: The index is written here.
    """
    with_rows = [each for each in shards if each.shard]
    rows = _rows(with_rows)
    return SplitManifest(
        index=write_index([each.rows for each in with_rows], turns, folder),
        shards=tuple(each.shard for each in shards if each.shard),
        rows=len(rows),
        content=_content(classes, agreed.reading, rows, turns),
        left_out=listed - len(rows),
    )


def _content(
    classes: tuple[str, ...], reading: Reading, rows: Sequence[IndexRow], turns: Sequence[int]
) -> str:
    """Return the digest of what the rows show, however they are divided among files."""
    identity: dict[str, Any] = {
        "classes": classes,
        "rows": [
            (row.id, row.row_sha256) if turn == 1 else (row.id, row.row_sha256, turn)
            for row, turn in zip(rows, turns, strict=True)
        ],
    }
    masks = reading.model_dump(exclude={"turned"}, exclude_defaults=True)
    return json_digest(identity | ({"reading": masks} if masks else {}))


def write_index(
    shards: Sequence[tuple[IndexRow, ...]], turns: Sequence[int], folder: Path
) -> StoredFile:
    """Write the rows of all shards as one table; `shards` are in the manifest's order."""
    columns: dict[str, list[Any]] = {name: [] for name in INDEX_SCHEMA.names}
    for number, rows in enumerate(shards):
        for row in rows:
            fields = row.model_dump() | {
                "shard": number,
                "row_sha256": bytes.fromhex(row.row_sha256),
            }
            for name, values in columns.items():
                values.append(fields[name])
    table = pa.table(
        [pa.array(columns[field.name], field.type) for field in INDEX_SCHEMA], schema=INDEX_SCHEMA
    )
    if any(turn != 1 for turn in turns):
        table = table.append_column(ORIENTATION, pa.array(turns, ORIENTATION.type))
    partial_file = folder / "index.partial"
    parquet.write_table(table, partial_file, compression="zstd", write_page_checksum=True)
    return name_by_digest(partial_file, ".parquet")
