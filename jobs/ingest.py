"""Put a dataset into the store, once and for all: `python -m jobs.ingest voc --root PATH --store URI`.

Every image is decoded and checked, and stored as the original bytes; masks are, too, unless they have to be made. Interrupted,
the same command goes on where it was; done again, it uploads nothing. What is wrong with which image is listed, on the screen
and in `reports/<name>.json` of the store. `ls`, `info` and `export` show what a store holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jobs.datasets import export, info, ls
from jobs.errors import user_errors
from jobs.progress import progress_bar
from orchestrator.datasets.catalog import check_name, damaged, stored_files
from orchestrator.datasets.ingest import Ingestion, OnBad, Where
from orchestrator.datasets.ingest import ingest as ingest_source
from orchestrator.records import layout
from orchestrator.store.base import Store, check_writable, write_if_changed
from orchestrator.store.canonical import canonical_json
from orchestrator.store.open import DEFAULT_STORE, open_store
from training.data.ade import Ade
from training.data.coco import MASKS, Coco
from training.data.coco_voc import CocoVoc
from training.data.digits import Digits
from training.data.sbd import VocWithSbd
from training.data.shards import Manifest
from training.data.source import Source
from training.data.validation import BadRow, BadRows
from training.data.voc import Voc


@dataclass(frozen=True)
class Options:
    """How, whatever the dataset."""

    store: str = DEFAULT_STORE
    """Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store."""
    on_bad: OnBad = "error"
    """Whether one unusable image refuses the dataset, or is left out of it."""
    where: Where = "auto"
    """Threads here, or tasks of a Ray cluster ($RAY_ADDRESS, or this machine); auto: a cluster from 20,000 new images on."""
    verify: bool = False
    """Afterwards read all that the store holds of the dataset, and store again what is damaged."""


Flat = Annotated[Options, tyro.conf.arg(name="")]


@user_errors()
def voc(root: Path, name: str = "voc", sbd: Path | None = None, options: Flat = Options()) -> None:
    """A folder in the layout of PASCAL VOC 2012, with or without the masks of SBD.

    Args:
        root: Folder that holds JPEGImages, ImageSets/Segmentation and SegmentationClassAug or SegmentationClass.
        name: What to call the dataset.
        sbd: Folder of SBD's own release (benchmark_RELEASE/dataset), where there is no SegmentationClassAug.
    """
    _run(lambda: _voc(root, sbd), name, options)


@user_errors()
def coco(
    root: Path, name: str = "coco", masks: MASKS = "instances", options: Flat = Options()
) -> None:
    """COCO 2017's 80 classes, from its instances or from COCO-Stuff's maps.

    Args:
        root: Folder that holds train2017, val2017 and annotations or stuffthingmaps.
        name: What to call the dataset.
        masks: What masks are made of: annotations/instances_*2017.json, or the PNGs in stuffthingmaps/*2017.
    """
    _run(lambda: Coco(root, masks), name, options)


@user_errors()
def ade(root: Path, name: str = "ade", options: Flat = Options()) -> None:
    """ADE20K, the scene-parsing benchmark of 150 classes.

    Args:
        root: Folder ADEChallengeData2016, which holds images and annotations.
        name: What to call the dataset.
    """
    _run(lambda: Ade(root), name, options)


@user_errors()
def coco_voc(
    coco: Path,
    voc: Path,
    name: str = "coco_voc",
    sbd: Path | None = None,
    masks: MASKS = "stuffthingmaps",
    options: Flat = Options(),
) -> None:
    """COCO-to-VOC: 60 classes of COCO, then VOC's 20 from VOC's images.

    Args:
        coco: Folder as for `coco`.
        voc: Folder as for `voc`.
        name: What to call the dataset.
        sbd: As for `voc`.
        masks: As for `coco`; the papers use stuffthingmaps.
    """
    _run(lambda: CocoVoc(coco, _voc(voc, sbd), masks), name, options)


@user_errors()
def digits(
    name: str = "digits",
    train: int = 1500,
    val: int = 300,
    seed: int = 0,
    options: Flat = Options(),
) -> None:
    """Scenes composed of scikit-learn's handwritten digits: needs no download.

    Args:
        name: What to call the dataset.
        train: Scenes to train on.
        val: Scenes to validate on, of other handwriting.
        seed: Of the scenes.
    """
    _run(lambda: Digits(seed, train, val), name, options)


def ingest(
    source: Source,
    store: Store,
    name: str,
    on_bad: OnBad,
    console: Console,
    where: Where = "auto",
    verify: bool = False,
) -> str:
    """Check the source, publish it as `name` and say what was done; returns the manifest's digest.

    Raises BadData (BadRows for unusable images, after listing them) and StoreError.
    """
    check_name(name)
    check_writable(store)
    done = _store(source, store, name, on_bad, console, where)
    if verify:
        found = _damaged(store, name, done.manifest, console)
        for key in found:
            store.delete(key)
            console.print(f"damaged: {store.uri}/{key}")
        if found:
            done = _store(source, store, name, on_bad, console, where)
        console.print(
            f"verified: {len(stored_files(done.manifest))} files, {len(found)} of them damaged and stored again"
        )
    _report(store, name, done.manifest, done.bad, console)
    counts = ", ".join(
        f"{split.rows} images in {kind}" for kind, split in done.manifest.splits.items()
    )
    console.print(f"{name}: {counts}, {len(done.manifest.classes)} classes")
    published = done.publication
    if published.uploaded or published.renewed:
        amount = f"{published.uploaded} of {published.files} files ({published.bytes / 1e6:.1f} MB)"
        console.print(f"uploaded {amount} to {store.uri}/{layout.manifest(published.manifest)}")
    else:
        console.print(f"nothing to upload: {store.uri} already has exactly this as {name!r}")
    return published.manifest


def _run(open_source: Callable[[], Source], name: str, options: Options) -> None:
    """The source is opened after the store: reading COCO's annotations takes a while."""
    store, console = (
        open_store(options.store),
        Console(markup=False, highlight=False, soft_wrap=True),
    )
    check_name(name)
    check_writable(store)
    ingest(open_source(), store, name, options.on_bad, console, options.where, options.verify)


def _voc(root: Path, sbd: Path | None) -> Voc:
    return VocWithSbd(root, sbd) if sbd else Voc(root)


def _store(
    source: Source, store: Store, name: str, on_bad: OnBad, console: Console, where: Where
) -> Ingestion:
    images = sum(len(source.ids(split)) for split in source.splits)
    try:
        with progress_bar(console, f"checking and storing {name}", images) as advance:
            return ingest_source(
                source,
                store,
                name,
                on_bad=on_bad,
                where=where,
                progress=lambda seen, total: advance(seen),
            )
    except BadRows as error:
        _report(store, name, None, error.rows, console)
        raise


def _damaged(store: Store, name: str, manifest: Manifest, console: Console) -> list[str]:
    files = stored_files(manifest)
    with progress_bar(
        console, f"verifying {name} (bytes)", sum(file.bytes for file in files.values())
    ) as advance:
        return damaged(store, files, advance)


def _report(
    store: Store, name: str, manifest: Manifest | None, bad: list[BadRow], console: Console
) -> None:
    """List unusable images on the screen, and write the list to the store even when it is empty."""
    key = layout.ingestion_report(name)
    images = {split: files.rows for split, files in manifest.splits.items()} if manifest else {}
    data = canonical_json(
        {"dataset": name, "published": manifest is not None, "images": images, "unusable": bad}
    )
    write_if_changed(store, key, data)
    if bad:
        table = Table(
            "split", "image", "reason", title=f"Unusable images of {name}", title_justify="left"
        )
        for row in bad:
            table.add_row(row.split, row.id, row.reason)
        console.print(table)
        console.print(f"the list is kept as {store.uri}/{key}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    commands = {
        "voc": voc, "coco": coco, "ade": ade, "coco-voc": coco_voc, "digits": digits, "ls": ls, "info": info, "export": export,
    }  # fmt: skip
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m jobs.ingest", description=__doc__, args=arguments
    )


if __name__ == "__main__":
    main()
