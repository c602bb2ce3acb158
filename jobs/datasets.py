"""Show what a store holds: the commands `ls`, `info` and `export` of `python -m jobs.ingest`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jobs.console import open_console
from jobs.options import AtStore
from jobs.places import checked_folder
from orchestrator.datasets.catalog import (
    UnknownDataset,
    damaged,
    known_and_foreign,
    load_index,
    resolve,
    stored_files,
)
from orchestrator.datasets.layers import layers_of
from orchestrator.store.base import Store, StoreError
from orchestrator.store.cache import default_cache
from training.config import InputError
from training.data.manifest import Manifest, StoredFile
from training.named_groups import named_groups
from training.scenario import Setting, select_images, split_groups

Name = Annotated[str, tyro.conf.Positional]


def ls(at: AtStore) -> None:
    """List the datasets of a store."""
    store = at.open_existing()
    names, foreign = known_and_foreign(store)
    if not names:
        raise UnknownDataset(
            f"the store {store.uri} has no dataset: name another with --store, or put one there "
            "with `python -m jobs.ingest`"
        )
    table = Table("name", "images", "classes", "MB", "manifest")
    damages = []
    for name in names:
        try:
            digest, manifest = resolve(store, name)
        except StoreError as error:
            damages.append(error)
            continue
        classes = str(len(manifest.classes))
        table.add_row(name, _images(manifest), classes, f"{_megabytes(manifest):.1f}", digest[:16])
    console = open_console()
    console.print(table)
    for error in damages:
        console.print(f"passed over: {error}")
    if foreign:
        console.print(f"passed over, because no dataset has such a name: {', '.join(foreign)}")


def info(name: Name, at: AtStore, verify: bool = False) -> None:
    """Show a dataset: its splits, how many images of each show each class, and its layers.

    Args:
        name: Name of the dataset, or its manifest's digest.
        verify: Read all of it and compare it with its digests.
    """
    store = at.open_existing()
    console = open_console()
    digest, manifest = resolve(store, name)
    classes = len(manifest.classes)
    size = f"{_megabytes(manifest):.1f} MB"
    console.print(f"{name}: {_images(manifest)}, {classes} classes, {size}")
    console.print(f"manifest {digest}")
    for split, files in manifest.splits.items():
        console.print(f"{split}: {len(files.shards)} shards, content {files.content}")
    console.print(_class_table(store, manifest))
    files = stored_files(manifest)
    for layer, identity in layers_of(store, manifest).items():
        _, maps = resolve(store, identity)
        files |= stored_files(maps)
        console.print(
            f"layer {layer}: {_images(maps)} maps, {_megabytes(maps):.1f} MB, manifest {identity}"
        )
    if verify:
        _verify(store, name, files, console)


def _class_table(store: Store, manifest: Manifest) -> Table:
    """Return how many images of each split show each class."""
    table = Table("id", "class", *(f"images in {split}" for split in manifest.splits))
    columns = []
    for split in manifest.splits:
        index = load_index(store, manifest, split, default_cache())
        columns.append(index.labels.sum(0).tolist())
    for number, class_name in enumerate(manifest.classes):
        counts = [str(column[number]) for column in columns]
        table.add_row(str(number + 1), class_name, *counts)
    return table


def _verify(store: Store, name: str, files: dict[str, StoredFile], console: Console) -> None:
    """Compare all files of a dataset with their digests. Raise StoreError for one that differs."""
    found = damaged(store, files)
    if found:
        raise StoreError(
            f"{len(found)} of {len(files)} files of dataset {name!r} in the store {store.uri} are "
            f"damaged or missing ({', '.join(found[:3])}): ingest it again with --verify"
        )
    console.print(f"verified: {len(files)} files")


def export(
    name: Name,
    at: AtStore,
    split: str | None = None,
    groups: tuple[str, ...] | None = None,
    setting: Setting = "overlap",
    images: str = "train",
    out: Path = Path("."),
) -> None:
    """Write the ids of the images that each step of a scenario trains on, one file for each step.

    Args:
        name: Name of the dataset, or its manifest's digest.
        split: Groups by number, over the dataset's classes in order: 15-5 is 15 classes, then 5 at
            a time.
        groups: Class names of each step instead, separated by commas, steps by spaces:
            cat,horse,sofa cow,dog.
        setting: Disjoint leaves out of each step the images that show a class of a later one.
        images: The split of the dataset to select from.
        out: Folder for the lists; it is made.
    """
    # The resolver imports PyTorch, which the other commands do without.
    from orchestrator.planning.resolver import class_ids

    out = checked_folder(out)
    store = at.open_existing()
    console = open_console()
    _, manifest = resolve(store, name)
    names = class_groups(split, groups, manifest.classes)
    ids = [class_ids(group, manifest.classes, name) for group in names]
    index = load_index(store, manifest, images, default_cache())
    for step, learned in enumerate(names):
        rows = select_images(index.labels, ids, step, setting, index.ids)
        path = out / f"{name}_{split or 'groups'}_{setting}_step{step}.txt"
        path.write_text("".join(f"{index.ids[row]}\n" for row in rows))
        console.print(f"{path}: {len(rows)} images with {', '.join(learned)}")


def class_groups(
    split: str | None, groups: Sequence[str] | None, classes: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Return the class names of each step, given by number or by name."""
    if split and not groups:
        return split_groups(split, classes)
    if groups and not split:
        return named_groups(groups, classes)
    raise InputError("give either --split or --groups")


def _images(manifest: Manifest) -> str:
    return ", ".join(f"{files.rows} {split}" for split, files in manifest.splits.items())


def _megabytes(manifest: Manifest) -> float:
    return sum(file.bytes for file in stored_files(manifest).values()) / 1e6
