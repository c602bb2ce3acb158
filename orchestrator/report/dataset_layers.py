"""Show the companion layers of a dataset as pictures of some of their maps."""

from collections.abc import Iterator

import numpy as np

from orchestrator.datasets.layers import layers_of, with_layers
from orchestrator.report.dataset_look import LookedAt, decode
from orchestrator.report.dataset_page import LONGEST, LayerFacts, picture_uri
from orchestrator.report.pictures import SMALL, overlay, palette
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.data.layers import LayerReader
from training.data.manifest import Manifest

SHOWN = 4  # maps of a layer
# A map of more different values is shown in grays, as saliency is; others in colours, as labels.
FEW_VALUES = 64


def show_layers(store: Store, manifest: Manifest, train: LookedAt) -> list[LayerFacts]:
    """Return the layers of a dataset with pictures of their first maps.

    Args:
        store: The store that holds them.
        manifest: Of the dataset.
        train: Its training split.

    Raises:
        StoreError: The store does not answer.
        BadData: A map is damaged.
    """
    return [
        _show(store, train, name, identity)
        for name, identity in sorted(layers_of(store, manifest).items())
    ]


def _show(store: Store, train: LookedAt, name: str, identity: str) -> LayerFacts:
    nothing = np.empty(0, np.int64)
    split = with_layers(train.split, store, {name: (name, identity)}, nothing, default_cache())
    maps = split.layers[name].index
    looked = [row for row in train.sample.rows if train.index.ids[row] in maps.row_of]
    rows = np.array(looked[:SHOWN], np.int64)
    opened = with_layers(train.split, store, {name: (name, identity)}, rows, default_cache())
    reader = LayerReader(opened.layers[name], opened.layer_rows(name, rows))
    pictures = tuple(_pictures(train, rows, reader))
    return LayerFacts(name, len(maps.ids), len(train.index.ids), pictures)


def _pictures(
    train: LookedAt, rows: np.ndarray, reader: LayerReader
) -> Iterator[tuple[str, str, bool]]:
    """Yield photos, each followed by its map."""
    for position, row in enumerate(rows.tolist()):
        pixels = decode(train.split, row).pixels
        values = reader.read(position)
        words = f"{train.index.ids[row]}: values {values.min()} to {values.max()}"
        for shown in (pixels, _coloured(values)):
            small = overlay(shown, np.zeros(shown.shape[:2], np.uint8), LONGEST)
            yield picture_uri(small), words, max(small.shape) <= SMALL


def _coloured(values: np.ndarray) -> np.ndarray:
    """Return a map as a picture, uint8 [H, W, 3]."""
    if len(np.unique(values)) <= FEW_VALUES:
        return palette()[values % 256]
    gray = (255.0 * values / values.max()).astype(np.uint8)
    return np.repeat(gray[..., None], 3, 2)
