"""Pictures of what a model sees: a fixed handful of validation images, and what each step's published files make of them.

The images are chosen from the confusion counts alone, always the same ones, so that every class appears; the predictions are
made anew from the written files, in the very view of the image that was scored. Beside those of a step that learned from image
labels stands what it was taught by (`orchestrator.report.wilson_targets`).
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.execution.worker import fetch_published
from orchestrator.records.results import ChainResult
from orchestrator.report.wilson_targets import WeakView, has_localizer, load_method, weak_view
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.checkpoint import load_model
from training.config import VOID, EvaluationConfig, flatten_groups
from training.data.shards import LocalSplit
from training.evaluate import predict, views
from training.methods.wilson import Method
from training.metrics import Confusion

SMALL = 128  # pixels; smaller images are kept exact and shown enlarged
VISIBLE = 0.01  # share of an image below which a class is hard to see in it


class Picture(NamedTuple):
    """One image as it was scored. Label maps are uint8 [H, W] of dataset ids."""

    id: str
    pixels: np.ndarray  # uint8 [H, W, 3]
    truth: np.ndarray
    predictions: list[np.ndarray]  # of each model asked for, in order
    weak: Sequence[
        WeakView | None
    ] = ()  # what each was taught by, None where by masks; or nothing at all


def published_pictures(store: Store, chains: Sequence[ChainResult]) -> list[Picture]:
    """Images of the split that the chains were scored on, with each step's prediction: chain after chain, step after step.

    Raises StoreError when the dataset or a step's files are not in the store any more.
    """
    evaluation = chains[0].steps[-1].evaluation
    _, manifest = resolve(store, evaluation.data.manifest)
    classes = list(dict.fromkeys(c for chain in chains for c in flatten_groups(chain.groups)))
    rows = choose_images(chains[0].steps[-1].confusion, classes)
    data = open_stored_split(
        store,
        manifest,
        evaluation.data.split,
        default_cache(),
        dataset=evaluation.data.name,
        rows=np.asarray(rows),
    )
    records = [step.record for chain in chains for step in chain.steps]
    with TemporaryDirectory(prefix="stepchain-pictures-") as scratch:
        folders: dict[str, Path] = {}  # chains share steps
        for record in records:
            if record.key not in folders:
                folders[record.key] = fetch_published(store, record, Path(scratch) / record.key)
        steps = {record.key: record for record in records}
        methods = [
            load_method(record.step, folders[key], folders[record.parent])
            if record.parent and has_localizer(record.step)
            else None
            for key, record in steps.items()
        ]
        pictures = take_pictures(data, rows, evaluation.config, list(folders.values()), methods)
    order = [list(folders).index(record.key) for record in records]
    return [
        picture._replace(
            predictions=[picture.predictions[model] for model in order],
            weak=[picture.weak[model] for model in order],
        )
        for picture in pictures
    ]


def choose_images(
    confusion: Confusion, classes: Sequence[int], least: int = 6, most: int = 12
) -> list[int]:
    """Rows of the images to show: again and again the one with most classes not shown yet, the first of equals.

    Stops at `most`, or when all of `classes` (dataset ids) that can be seen have been and there are `least`.
    """
    images = np.unique(confusion.image)
    pixels = np.zeros((len(images), 256))
    np.add.at(pixels, (np.searchsorted(images, confusion.image), confusion.truth), confusion.pixels)
    shares = (pixels / pixels.sum(1, keepdims=True))[:, list(classes)]
    shown = np.where(shares.max(0) >= VISIBLE, shares >= VISIBLE, shares > 0)
    chosen: list[int] = []
    rest = list(range(len(images)))
    missing = np.zeros(len(classes), bool)
    while rest and len(chosen) < most:
        if not missing.any():
            if len(chosen) >= least:
                break
            missing = shown[rest].any(0)  # another round, over the images that are left
        best = max(rest, key=lambda image: (shown[image] & missing).sum())
        rest.remove(best)
        chosen.append(best)
        missing &= ~shown[best]
    return images[chosen].tolist()


def take_pictures(
    data: LocalSplit,
    rows: Sequence[int],
    config: EvaluationConfig,
    models: Sequence[Path],
    methods: Sequence[Method | None] | None = None,
) -> list[Picture]:
    """The images at `rows` of the split, and what each model (the folder of a step's published files) predicts of them.

    `methods`: of each model, the method that made it if it had a localizer, to show what that saw.
    """
    dataset = views(data, np.asarray(rows), config)
    items = [dataset[0, position] for position in range(len(rows))]
    predictions: list[list[np.ndarray]] = [[] for _ in items]
    for folder in models:
        model, document = load_model(folder)
        class_ids = torch.tensor(document.class_ids, dtype=torch.uint8)
        for item, made in zip(items, predictions, strict=True):
            made.append(predict(model, torch.as_tensor(item["image"])[None], class_ids)[0].numpy())
    views_of = [
        [
            method
            and weak_view(method, torch.as_tensor(item["image"]), torch.as_tensor(item["mask"]))
            for method in methods or ()
        ]
        for item in items
    ]
    return [
        Picture(
            data.index.ids[row],
            torch.as_tensor(item["image"]).permute(1, 2, 0).numpy(),
            torch.as_tensor(item["mask"]).numpy(),
            made,
            weak,
        )
        for row, item, made, weak in zip(rows, items, predictions, views_of, strict=True)
    ]


def palette() -> np.ndarray:
    """Colours of class ids as Pascal VOC shows them, uint8 [256, 3]; void is white."""
    ids, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(
        8
    ):  # the id's bits, three at a time, become the high bits of red, green and blue
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    colours[VOID] = 255
    return colours


def label_picture(labels: np.ndarray) -> bytes:
    """A label map, uint8 [H, W] of dataset ids, as a PNG file with VOC's palette: its values are still the ids."""
    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    return _file(image, "PNG")


def photo(pixels: np.ndarray) -> bytes:
    """An image, uint8 [H, W, 3], as a file: JPEG, or PNG where it is so small that JPEG would blur it."""
    image = Image.fromarray(pixels)
    return _file(image, "PNG" if max(image.size) <= SMALL else "JPEG", quality=85)


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    out = BytesIO()
    image.save(out, kind, optimize=True, **options)
    return out.getvalue()
