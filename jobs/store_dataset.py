"""Check a dataset, put it into a store, and print what was done."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from orchestrator.datasets.catalog import (
    Publication,
    check_name,
    damaged,
    stored_files,
)
from orchestrator.datasets.ingest import Ingestion, OnBad, Where, ingest
from orchestrator.execution.progress_display import show_progress
from orchestrator.records import layout
from orchestrator.records.store_version import prepare_store
from orchestrator.store.base import Store, write_if_changed
from orchestrator.store.canonical import canonical_json
from training.data.manifest import Manifest
from training.data.source import Source
from training.data.validation import BadRow, BadRows


@dataclass(frozen=True)
class IngestRequest:
    """A dataset to store: its images, the store, and its name there."""

    source: Source
    store: Store
    name: str
    console: Console
    on_bad: OnBad = "error"
    where: Where = "auto"


def store_dataset(request: IngestRequest, verify: bool = False) -> str:
    """Check a dataset and publish it under its name.

    Args:
        request: The dataset, and the store that it goes to.
        verify: Afterwards read all that the store holds of it, and store again what is damaged.

    Returns:
        The digest of its manifest.

    Raises:
        BadData: An image cannot be used; the list is printed and stored first.
        StoreError: The store cannot be read or written.
    """
    check_name(request.name)
    prepare_store(request.store)
    done = _ingest(request)
    if verify:
        done = _repair(request, done)
    _report_unusable(request, done.manifest, done.bad)
    _print_published(request, done.manifest, done.publication)
    return done.publication.manifest


def _ingest(request: IngestRequest) -> Ingestion:
    """Check and publish the dataset, with a progress bar."""
    source = request.source
    name = request.name
    images = sum(len(source.ids(split)) for split in source.splits)
    try:
        with show_progress(request.console, f"checking and storing {name}", images) as advance:
            return ingest(
                source,
                request.store,
                name,
                on_bad=request.on_bad,
                where=request.where,
                progress=lambda done, total: advance(done),
            )
    except BadRows as error:
        _report_unusable(request, None, error.rows)
        raise


def _repair(request: IngestRequest, done: Ingestion) -> Ingestion:
    """Read all files of the dataset, and publish those again that are missing or damaged."""
    store = request.store
    console = request.console
    files = stored_files(done.manifest)
    total = sum(file.bytes for file in files.values())
    with show_progress(console, f"verifying {request.name} (bytes)", total) as advance:
        found = damaged(store, files, advance)
    for key in found:
        store.delete(key)
        console.print(f"damaged: {store.uri}/{key}")
    if found:
        done = _ingest(request)
    files = stored_files(done.manifest)
    console.print(f"verified: {len(files)} files, {len(found)} of them damaged and stored again")
    return done


def _report_unusable(
    request: IngestRequest, manifest: Manifest | None, bad: Sequence[BadRow]
) -> None:
    """Print the unusable images, and write their list to the store even when it is empty."""
    store = request.store
    console = request.console
    key = layout.ingestion_report(request.name)
    splits = manifest.splits if manifest else {}
    document = {
        "dataset": request.name,
        "published": manifest is not None,
        "images": {split: files.rows for split, files in splits.items()},
        "unusable": list(bad),
    }
    write_if_changed(store, key, canonical_json(document))
    if bad:
        title = f"Unusable images of {request.name}"
        table = Table("split", "image", "reason", title=title, title_justify="left")
        for row in bad:
            table.add_row(row.split, row.id, row.reason)
        console.print(table)
        console.print(f"the list is stored as {store.uri}/{key}")


def _print_published(request: IngestRequest, manifest: Manifest, publication: Publication) -> None:
    """Print what the dataset holds, and how much of it was uploaded."""
    store = request.store
    name = request.name
    console = request.console
    counts = ", ".join(
        f"{files.rows} images in {split}" for split, files in manifest.splits.items()
    )
    console.print(f"{name}: {counts}, {len(manifest.classes)} classes")
    if publication.uploaded or publication.renewed:
        files = f"{publication.uploaded} of {publication.files} files"
        megabytes = f"{publication.bytes / 1e6:.1f} MB"
        target = f"{store.uri}/{layout.manifest(publication.manifest)}"
        console.print(f"uploaded {files} ({megabytes}) to {target}")
    else:
        console.print(f"nothing to upload: {store.uri} already has exactly this as {name!r}")
