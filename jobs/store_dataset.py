"""Check a dataset, put it into a store, and print what was done."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from jobs.ingest_summary import print_summary
from orchestrator.datasets.catalog import (
    Publication,
    check_name,
    check_replaced,
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
from training.data.reading import NOTHING_ASKED, Asked
from training.data.source import Remarking, Source
from training.data.validation import BadRow, BadRows

SHOWN_ROWS = 100  # of unusable images; the store has the list of all


@dataclass(frozen=True)
class IngestRequest:
    """A dataset to store: its images, the store, and its name there."""

    source: Source
    store: Store
    name: str
    console: Console
    on_bad: OnBad = "error"
    where: Where = "auto"
    replace: bool = False  # the name may stand for a dataset of other classes now
    asked: Asked = NOTHING_ASKED


def store_dataset(request: IngestRequest, verify: bool = False) -> str:
    """Check a dataset and publish it under its name.

    Args:
        request: The dataset, and the store that it goes to.
        verify: Afterwards read all that the store holds of it, and store again what is damaged.

    Returns:
        The digest of its manifest.

    Raises:
        BadData: An image cannot be used; the list is printed and stored first.
        InputError: The name stands for a dataset of other classes.
        StoreError: The store cannot be read or written.
    """
    check_name(request.name)
    prepare_store(request.store)
    before = check_replaced(request.store, request.name, request.source.classes, request.replace)
    done = _ingest(request)
    if verify:
        done = _repair(request, done)
    _report_unusable(request, done.manifest, done.bad)
    print_summary(request.console, done.summary, done.manifest.classes)
    for remark in done.remarks:
        request.console.print(f"note: {remark}")
    _print_published(request, done.manifest, done.publication)
    if before and before != done.publication.manifest:
        request.console.print(
            f"{request.name!r} stood for the dataset {before} before, which the store keeps: steps "
            "that were trained on it are not affected"
        )
    return done.publication.manifest


def _ingest(request: IngestRequest) -> Ingestion:
    """Check and publish the dataset, with a progress bar."""
    source = request.source
    name = request.name
    if isinstance(source, Remarking):
        for remark in source.remarks():
            request.console.print(f"note: {remark}")
    images = sum(len(source.ids(split)) for split in source.splits)
    try:
        with show_progress(request.console, f"checking and storing {name}", images) as advance:
            return ingest(
                source,
                request.store,
                name,
                on_bad=request.on_bad,
                where=request.where,
                asked=request.asked,
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
        for row in bad[:SHOWN_ROWS]:
            table.add_row(row.split, row.id, row.reason)
        console.print(table)
        if len(bad) > SHOWN_ROWS:
            console.print(f"and {len(bad) - SHOWN_ROWS} more")
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
