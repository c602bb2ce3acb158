"""Predict a fixed handful of validation images with the published files of each step.

Confusion counts alone decide on the images. They are always the same ones, and every class appears.
The predictions use the view of the image that was scored. Steps that learned from image labels
also show their targets, see `orchestrator.report.wilson_targets`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.records.results import ChainResult
from orchestrator.records.schema import StepRecord
from orchestrator.report.pictures import Picture, WeakView
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.config import EvaluationConfig, flatten_groups
from training.data.shards import LocalSplit
from training.metrics import Confusion

if TYPE_CHECKING:
    from training.methods.wilson import Method

# A class is hard to see below this share of an image.
VISIBLE = 0.01


def published_pictures(store: Store, chains: Sequence[ChainResult]) -> list[Picture]:
    """Predict images of the split that the chains were scored on.

    Args:
        store: The store that holds the dataset and the files of the steps.
        chains: Chains that were scored alike.

    Returns:
        The images with the predictions of all steps, chain after chain.

    Raises:
        StoreError: The dataset or the files of a step are not in the store anymore.
    """
    evaluation = chains[0].steps[-1].evaluation
    _, manifest = resolve(store, evaluation.data.manifest)
    learned = flatten_groups(flatten_groups(chain.groups) for chain in chains)
    rows = choose_images(chains[0].steps[-1].confusion, list(dict.fromkeys(learned)))
    data = open_stored_split(
        store,
        manifest,
        evaluation.data.split,
        default_cache(),
        dataset=evaluation.data.name,
        rows=np.asarray(rows),
    )
    records = [step.record for chain in chains for step in chain.steps]
    # Chains share steps, so each step predicts once.
    steps = {record.key: record for record in records}
    with TemporaryDirectory(prefix="stepchain-pictures-") as scratch:
        folders = _fetch_models(store, steps.values(), Path(scratch))
        methods = [_load_weak_method(record, folders) for record in steps.values()]
        pictures = take_pictures(data, rows, evaluation.config, list(folders.values()), methods)
    order = [list(steps).index(record.key) for record in records]
    return [_reorder(picture, order) for picture in pictures]


def _fetch_models(store: Store, records: Iterable[StepRecord], scratch: Path) -> dict[str, Path]:
    """Copy the published files of steps. Return their folders by step key."""
    from orchestrator.execution.worker import fetch_published

    return {record.key: fetch_published(store, record, scratch / record.key) for record in records}


def _load_weak_method(record: StepRecord, folders: dict[str, Path]) -> "Method | None":
    """Return the method of a step that learned from image labels, None of other steps."""
    from orchestrator.report.wilson_targets import has_localizer, load_method

    if not has_localizer(record.step):
        return None
    parent = folders[record.parent] if record.parent else None
    return load_method(record.step, folders[record.key], parent)


def _reorder(picture: Picture, order: Sequence[int]) -> Picture:
    """Return the picture with one prediction for each of these indexes of steps."""
    return picture._replace(
        predictions=[picture.predictions[step] for step in order],
        weak=[picture.weak[step] for step in order],
    )


def choose_images(
    confusion: Confusion, classes: Sequence[int], least: int = 6, most: int = 12
) -> list[int]:
    """Choose images that show all classes.

    Each choice is the image with most classes that were not shown yet, the first of equals.
    Choosing ends when all classes that can be seen are shown and there are `least` images.

    Args:
        confusion: Pixel counts of the split.
        classes: Dataset class ids to show.
        least: Number of images to choose, even when fewer show all classes.
        most: Number of images after which choosing ends in any case.

    Returns:
        The rows of the images in the split.
    """
    images = np.unique(confusion.image)
    pixels = np.zeros((len(images), 256))
    np.add.at(pixels, (np.searchsorted(images, confusion.image), confusion.truth), confusion.pixels)
    shares = (pixels / pixels.sum(1, keepdims=True))[:, list(classes)]
    shown = np.where(shares.max(0) >= VISIBLE, shares >= VISIBLE, shares > 0)
    chosen: list[int] = []
    left = list(range(len(images)))
    missing = np.zeros(len(classes), bool)
    while left and len(chosen) < most:
        if not missing.any():
            if len(chosen) >= least:
                break
            # All classes are shown. Another round over the images that are left fills up.
            missing = shown[left].any(0)
        gains = (shown[left] & missing).sum(1)
        best = left.pop(int(gains.argmax()))
        chosen.append(best)
        missing &= ~shown[best]
    return images[chosen].tolist()


def take_pictures(
    data: LocalSplit,
    rows: Sequence[int],
    config: EvaluationConfig,
    models: Sequence[Path],
    methods: "Sequence[Method | None]" = (),
) -> list[Picture]:
    """Predict images with several models.

    Args:
        data: The split.
        rows: The rows of the images in the split.
        config: The view of the images.
        models: Folders of the steps' published files.
        methods: The method of each model that has a localizer, None for other models. No targets
            are shown without them.
    """
    import torch

    from training.checkpoint import load_model
    from training.evaluate import predict, views

    dataset = views(data, np.asarray(rows), config)
    items = [dataset[0, position] for position in range(len(rows))]
    predictions: list[list[np.ndarray]] = [[] for _ in items]
    for folder in models:
        model, document = load_model(folder)
        class_ids = torch.tensor(document.class_ids, dtype=torch.uint8)
        for item, predicted in zip(items, predictions, strict=True):
            image = torch.as_tensor(item["image"])[None]
            predicted.append(predict(model, image, class_ids)[0].numpy())
    return [
        Picture(
            data.index.ids[row],
            torch.as_tensor(item["image"]).permute(1, 2, 0).numpy(),
            torch.as_tensor(item["mask"]).numpy(),
            predicted,
            _targets(item, methods),
        )
        for row, item, predicted in zip(rows, items, predictions, strict=True)
    ]


def _targets(item: Mapping[str, Any], methods: "Sequence[Method | None]") -> list[WeakView | None]:
    """Return the targets of each method on one image."""
    import torch

    from orchestrator.report.wilson_targets import weak_view

    pixels = torch.as_tensor(item["image"])
    mask = torch.as_tensor(item["mask"])
    return [method and weak_view(method, pixels, mask) for method in methods]
