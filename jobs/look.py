"""Show a dataset before anybody trains on it: the command `look` of `python -m jobs.ingest`."""

from collections.abc import Sequence
from pathlib import Path

from jobs.console import open_console
from jobs.datasets import Name, class_groups
from jobs.options import AtStore
from jobs.places import checked_folder
from orchestrator.datasets.catalog import resolve
from orchestrator.records import layout
from orchestrator.store.base import StoreError
from training.config import InputError
from training.scenario import Setting


def look(
    name: Name,
    at: AtStore,
    split: str | None = None,
    groups: tuple[str, ...] | None = None,
    setting: Setting = "overlap",
    sample: int = 500,
    out: Path | None = None,
) -> None:
    """Write a page with a dataset's classes, photos with masks and layers, and what looks wrong.

    Args:
        name: Name of the dataset, or its manifest's digest.
        split: Also show what each step would see. Groups by number, over the dataset's classes in
            order: 15-5 is 15 classes, then 5 at a time.
        groups: Class names of each step instead, separated by commas, steps by spaces:
            cat,horse,sofa cow,dog.
        setting: Disjoint leaves out of each step the images that show a class of a later one.
        sample: Images of each split to decode, for the size of objects and what looks alike. Images
            are added until 20 of each class are among them, where there are so many.
        out: File to write; by default look-NAME.html here. The store keeps a copy, which reports
            of chains link.
    """
    from orchestrator.execution.progress_display import show_progress
    from orchestrator.report.dataset_layers import show_layers
    from orchestrator.report.dataset_look import look_at
    from orchestrator.report.dataset_page import build_page

    if sample < 1:
        raise InputError(f"--sample {sample} shows nothing: give 1 or more")
    path = (out or Path(f"look-{name}.html")).expanduser()
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file in it")
    store = at.open()
    console = open_console()
    digest, manifest = resolve(store, name)
    steps = _steps(name, manifest.classes, split, groups)
    checked_folder(path.parent)
    most = sum(min(sample, files.rows) for files in manifest.splits.values())
    with show_progress(console, f"looking at {name}", most) as update:
        looked = look_at(store, name, manifest, sample, lambda done: update(min(done, most)))
    layers = show_layers(store, manifest, looked[0])
    page = build_page(name, manifest.classes, looked, steps, setting, layers)
    path.write_text(page, encoding="utf-8")
    try:
        store.write(layout.dataset_page(digest), page.encode())
    except StoreError as error:
        console.print(f"reports will not link it, because the store does not keep it: {error}")
    console.print(f"{name}: {path}")


def _steps(
    name: str, classes: Sequence[str], split: str | None, groups: Sequence[str] | None
) -> list[tuple[int, ...]]:
    """Return the class ids of each step that was asked for. Raise InputError for unknown names."""
    if not split and not groups:
        return []
    # The resolver imports PyTorch.
    from orchestrator.planning.resolver import class_ids

    return [class_ids(group, classes, name) for group in class_groups(split, groups, classes)]
