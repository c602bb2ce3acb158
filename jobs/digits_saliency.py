"""Put the saliency of the digits scenes into a store, as a companion layer beside them."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from orchestrator.datasets.layer_ingest import publish_layer
from orchestrator.store.base import Store
from training.data.digits import Digits, saliency

LAYER = "saliency"


def store_saliency(store: Store, dataset: str, source: Digits) -> None:
    """Publish the layer `saliency` of the scenes' training images, which SSUL reads.

    It is drawn from the pixels alone: no mask is looked at.

    Args:
        store: The store that holds the scenes.
        dataset: Their name there.
        source: What drew them.
    """
    with TemporaryDirectory(prefix="stepchain-saliency-") as scratch:
        for id in source.ids("train"):
            with Image.open(io.BytesIO(source.read("train", id).image)) as picture:
                salient = saliency(np.asarray(picture))
            Image.fromarray(salient).save(Path(scratch) / f"{id}.png")
        publish_layer(store, dataset, LAYER, Path(scratch))
