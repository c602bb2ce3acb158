"""Put a companion layer of a dataset into a store: the command `layer` of `jobs.ingest`."""

from pathlib import Path

from jobs.console import open_console
from jobs.datasets import Name
from jobs.options import AtStore
from orchestrator.datasets.catalog import resolve
from training.config import InputError


def layer(dataset: Name, root: Path, name: str, at: AtStore) -> None:
    """Ingest further maps of a dataset's training images, such as saliency or superpixels.

    Maps are PNG files with one number for each pixel, of at most 16 bits, of the images' own sizes.
    A step whose method names the layer reads it. Its key covers the maps that it reads.

    Args:
        dataset: Name of the dataset, which is in the store already.
        root: Folder of the maps, whose names are the images' ids.
        name: Name of the layer.
    """
    from orchestrator.datasets.layer_ingest import publish_layer
    from orchestrator.execution.progress_display import show_progress
    from training.data.manifest import LAYERED

    if not root.expanduser().is_dir():
        raise InputError(f"--root {root} is not a folder: give the folder of the maps")
    store = at.open_existing()
    console = open_console()
    _, manifest = resolve(store, dataset)
    images = sum(files.rows for split, files in manifest.splits.items() if split == LAYERED)
    with show_progress(console, f"checking and storing layer {name}", images) as update:
        done = publish_layer(store, dataset, name, root.expanduser(), lambda done, _: update(done))
    if done.strangers:
        console.print(
            f"note: {len(done.strangers)} files belong to no training image of {dataset} and were "
            f"passed over, such as {done.strangers[0]}"
        )
    if done.without_map:
        console.print(
            f"note: {len(done.without_map)} training images have no map, such as "
            f"{done.without_map[0]}: a step that trains on one of them cannot read the layer"
        )
    published = done.publication
    console.print(f"layer {name} of {dataset}: {done.maps} maps, manifest {published.manifest}")
    if published.uploaded or published.renewed:
        console.print(
            f"uploaded {published.uploaded} of {published.files} files "
            f"({published.bytes / 1e6:.1f} MB) to {store.uri}"
        )
    else:
        console.print(f"nothing to upload: {store.uri} already has exactly this as {name!r}")
