"""Find the companion layers that a step reads, and check that its images have maps."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from orchestrator.planning.validation import PlanError
from training.config import MethodConfig
from training.data.shards import Index


class StoredLayer(NamedTuple):
    """A layer of a dataset's training split, as a store has it."""

    name: str
    manifest: str  # digest
    maps: Index


# Returns the layer of a name; raises StoreError if the dataset has none of it.
OpenLayer = Callable[[str], StoredLayer]


class PlannedLayer(NamedTuple):
    """Where a worker finds a layer that a step reads."""

    name: str
    manifest: str  # digest


def read_layers(
    method: MethodConfig, number: int, index: Index, rows: np.ndarray, open_layer: OpenLayer
) -> tuple[MethodConfig, dict[str, PlannedLayer]]:
    """Return the method's document with digests of what step `number` reads, and the layers by it.

    A digest covers the maps of the step's images in their order. Maps of other images, which a
    layer may have or gain, change no step.

    Args:
        method: The document, which has names.
        number: The step's number.
        index: Of the dataset's training split.
        rows: The images of the step.
        open_layer: Finds a layer by its name.

    Raises:
        PlanError: An image of the step has no map.
        StoreError: The dataset has no such layer.
    """
    digests = {}
    planned = {}
    for name in method.layers:
        layer = open_layer(name)
        ids = [index.ids[row] for row in rows]
        missing = [id for id in ids if id not in layer.maps.row_of]
        if missing:
            few = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
            raise PlanError(
                f"layer {name!r} has no map of {len(missing)} of the {len(ids)} images that step "
                f"{number} trains on ({few}): add them to its folder and ingest the layer again"
            )
        maps = np.array([layer.maps.row_of[id] for id in ids], np.int64)
        digests[name] = layer.maps.selection_digest(maps)
        planned[digests[name]] = PlannedLayer(name, layer.manifest)
    return method.with_layers(digests), planned


def no_layer(name: str) -> StoredLayer:
    """Raise PlanError: there are no layers."""
    raise PlanError(f"there is no layer {name!r}")
