"""Publish companion layers of a dataset's training split.

A layer belongs to the content of the split, whatever names stand for the dataset.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.datasets.catalog import (
    Publication,
    check_name,
    load_index,
    publish_under,
    resolve,
)
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.data.layer_writer import write_layer
from training.data.manifest import LAYERED


class PublishedLayer(NamedTuple):
    """What `publish_layer` did."""

    publication: Publication
    maps: int
    without_map: list[str]  # ids of images that have none
    strangers: list[str]  # names of files that belong to no image


def publish_layer(
    store: Store,
    dataset: str,
    name: str,
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PublishedLayer:
    """Publish the maps of a folder as a layer of a dataset.

    Args:
        store: The store that holds the dataset.
        dataset: Name of the dataset.
        name: Name of the layer.
        root: Folder of the maps: PNG files with the images' ids as names.
        progress: Called with the number of maps that are done, and of all.

    Raises:
        UnknownDataset: There is no such dataset, or it has no training split.
        BadData: A map cannot be used.
    """
    check_name(name, "layer")
    _, manifest = resolve(store, dataset)
    index = load_index(store, manifest, LAYERED, default_cache())
    with TemporaryDirectory(prefix="stepchain-layer-") as scratch:
        written = write_layer(root, index, Path(scratch), progress)
        reference = layout.layer_name(manifest.splits[LAYERED].content, name)
        publication = publish_under(store, reference, Path(scratch), written.manifest)
    rows = written.manifest.splits[LAYERED].rows
    return PublishedLayer(publication, rows, written.without_map, written.strangers)
