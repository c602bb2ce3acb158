"""What a store holds: `python -m jobs.ingest ls`, `info voc` and `export voc --split 15-5 --setting overlap`."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jobs.errors import user_errors
from orchestrator.datasets.catalog import damaged, known, load_index, resolve, stored_files
from orchestrator.store.base import StoreError
from orchestrator.store.cache import default_cache
from orchestrator.store.open import DEFAULT_STORE, open_store
from training.config import InputError
from training.data.shards import Manifest
from training.scenario import Setting, select_images, split_groups

Name = Annotated[str, tyro.conf.Positional]


@user_errors()
def ls(store: str = DEFAULT_STORE) -> None:
    """The store's datasets.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
    """
    place = open_store(store)
    table = Table("name", "images", "classes", "MB", "manifest")
    for name in known(place):
        digest, manifest = resolve(place, name)
        table.add_row(
            name,
            _counts(manifest),
            str(len(manifest.classes)),
            f"{_megabytes(manifest):.1f}",
            digest[:16],
        )
    _console().print(table)


@user_errors()
def info(name: Name, store: str = DEFAULT_STORE, verify: bool = False) -> None:
    """One dataset: its splits, and how many images each class is in.

    Args:
        name: Of the dataset, or its manifest's digest.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        verify: Read all of it and compare it with its digests.
    """
    place, console = open_store(store), _console()
    digest, manifest = resolve(place, name)
    console.print(
        f"{name}: {_counts(manifest)}, {len(manifest.classes)} classes, {_megabytes(manifest):.1f} MB"
    )
    console.print(f"manifest {digest}")
    for split, files in manifest.splits.items():
        console.print(f"{split}: {len(files.shards)} shards, content {files.content}")
    labels = {
        split: load_index(place, manifest, split, default_cache()).labels.sum(0).tolist()
        for split in manifest.splits
    }
    table = Table("id", "class", *(f"images in {split}" for split in manifest.splits))
    for number, class_name in enumerate(manifest.classes):
        table.add_row(
            str(number + 1), class_name, *(str(counts[number]) for counts in labels.values())
        )
    console.print(table)
    if verify:
        files = stored_files(manifest)
        found = damaged(place, files)
        if found:
            raise StoreError(
                f"{len(found)} of {len(files)} files of dataset {name!r} in the store {place.uri} are damaged or missing "
                f"({', '.join(found[:3])}): ingest it again with --verify"
            )
        console.print(f"verified: {len(files)} files")


@user_errors()
def export(
    name: Name,
    split: str | None = None,
    groups: tuple[str, ...] | None = None,
    setting: Setting = "overlap",
    images: str = "train",
    out: Path = Path("."),
    store: str = DEFAULT_STORE,
) -> None:
    """The ids of the images that each step of a scenario trains on, one file a step, as other code bases list them.

    Args:
        name: Of the dataset, or its manifest's digest.
        split: Groups by number, over the dataset's classes in order: 15-5 is 15 classes, then 5 at a time.
        groups: Or class names of each step, separated by commas, steps by spaces: cat,horse,sofa cow,dog.
        setting: disjoint leaves out of each step the images that show a class of a later one.
        images: The split of the dataset to select from.
        out: Folder for the lists; it is made.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
    """
    from orchestrator.planning.resolver import (
        class_ids,  # with it comes torch, and whoever ingests does without it
    )

    if (split is None) == (groups is None):
        raise InputError("give either --split or --groups")
    place, console = open_store(store), _console()
    _, manifest = resolve(place, name)
    names = (
        split_groups(split, manifest.classes)
        if split
        else tuple(tuple(group.split(",")) for group in groups or ())
    )
    ids = [class_ids(group, manifest.classes, name) for group in names]
    index = load_index(place, manifest, images, default_cache())
    out.mkdir(parents=True, exist_ok=True)
    for step in range(len(ids)):
        rows = select_images(index.labels, ids, step, setting)
        path = out / f"{name}_{split or 'groups'}_{setting}_step{step}.txt"
        path.write_text("".join(f"{index.ids[row]}\n" for row in rows))
        console.print(f"{path}: {len(rows)} images with {', '.join(names[step])}")


def _console() -> Console:
    return Console(markup=False, highlight=False, soft_wrap=True)


def _counts(manifest: Manifest) -> str:
    return ", ".join(f"{files.rows} {split}" for split, files in manifest.splits.items())


def _megabytes(manifest: Manifest) -> float:
    return sum(file.bytes for file in stored_files(manifest).values()) / 1e6
