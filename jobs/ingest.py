"""Put a dataset into the store, once and for all: `python -m jobs.ingest voc --root PATH --store URI`.

Every image is decoded and checked before anything is stored, and the original bytes are stored unchanged. Doing it again
uploads nothing. What is wrong with which image is listed, on the screen and in `reports/<name>.json` of the store.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from jobs.errors import user_errors
from jobs.progress import progress_bar
from orchestrator.datasets import check_name, manifest_key, publish
from orchestrator.identity import canonical_json
from orchestrator.store import DEFAULT_STORE, Store, check_writable, open_store, write_if_changed
from training.data.digits import Digits
from training.data.inspection import BadRow, BadRows
from training.data.shards import Manifest, build
from training.data.sources import Source, Voc

OnBad = Literal["error", "skip"]


@user_errors()
def voc(root: Path, store: str = DEFAULT_STORE, name: str = "voc", on_bad: OnBad = "error") -> None:
    """A folder in the layout of PASCAL VOC 2012, with or without the masks of SBD.

    Args:
        root: Folder that holds JPEGImages, ImageSets/Segmentation and SegmentationClassAug or SegmentationClass.
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        name: What to call the dataset.
        on_bad: Whether one unusable image refuses the dataset, or is left out of it.
    """
    ingest(Voc(root), open_store(store), name, on_bad, _console())


@user_errors()
def digits(store: str = DEFAULT_STORE, name: str = "digits", train: int = 1500, val: int = 300, seed: int = 0) -> None:
    """Scenes composed of scikit-learn's handwritten digits: needs no download.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        name: What to call the dataset.
        train: Scenes to train on.
        val: Scenes to validate on, of other handwriting.
        seed: Of the scenes.
    """
    ingest(Digits(seed, train, val), open_store(store), name, "error", _console())


def ingest(source: Source, store: Store, name: str, on_bad: OnBad, console: Console) -> str:
    """Check the source, publish it as `name` and say what was done; returns the manifest's digest.

    Raises BadData (BadRows for unusable images, after listing them) and StoreError.
    """
    check_name(name)
    check_writable(store)
    with tempfile.TemporaryDirectory(prefix="stepchain-ingest-") as scratch:
        try:
            manifest, bad = _build(source, Path(scratch), name, on_bad, console)
        except BadRows as error:
            _report(store, name, None, error.rows, console)
            raise
        with progress_bar(console, f"storing {name} (bytes)", sum(_sizes(manifest))) as advance:
            done = publish(store, name, Path(scratch), manifest, lambda stored, total: advance(stored))
    _report(store, name, manifest, bad, console)
    counts = ", ".join(f"{split.rows} images in {kind}" for kind, split in manifest.splits.items())
    console.print(f"{name}: {counts}, {len(manifest.classes)} classes")
    if done.uploaded or done.renewed:
        amount = f"{done.uploaded} of {done.files} files ({done.bytes / 1e6:.1f} MB)"
        console.print(f"uploaded {amount} to {store.uri}/{manifest_key(done.manifest)}")
    else:
        console.print(f"nothing to upload: {store.uri} already has exactly this as {name!r}")
    return done.manifest


def _console() -> Console:
    """Prints names and paths as they are, on one line."""
    return Console(markup=False, highlight=False, soft_wrap=True)


def _build(source: Source, folder: Path, name: str, on_bad: OnBad, console: Console) -> tuple[Manifest, list[BadRow]]:
    examined = dict.fromkeys(source.splits, 0)
    with progress_bar(console, f"checking {name}", sum(len(source.ids(split)) for split in source.splits)) as advance:

        def progress(split: str, done: int, total: int) -> None:
            examined[split] = done
            advance(sum(examined.values()))

        return build(source, folder, on_bad=on_bad, progress=progress)


def _sizes(manifest: Manifest) -> list[int]:
    return [file.bytes for split in manifest.splits.values() for file in (*split.shards, split.index)]


def _report(store: Store, name: str, manifest: Manifest | None, bad: list[BadRow], console: Console) -> None:
    """List unusable images on the screen, and write the list to the store even when it is empty."""
    key = f"reports/{name}.json"
    images = {split: files.rows for split, files in manifest.splits.items()} if manifest else {}
    data = canonical_json({"dataset": name, "published": manifest is not None, "images": images, "unusable": bad})
    write_if_changed(store, key, data)
    if bad:
        table = Table("split", "image", "reason", title=f"Unusable images of {name}", title_justify="left")
        for row in bad:
            table.add_row(row.split, row.id, row.reason)
        console.print(table)
        console.print(f"the list is kept as {store.uri}/{key}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    commands = {"voc": voc, "digits": digits}
    tyro.extras.subcommand_cli_from_dict(commands, prog="python -m jobs.ingest", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
