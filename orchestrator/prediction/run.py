"""Predict photos: read them ahead on threads, predict them together, and write on threads.

Nothing waits for all photos. At most a few are in memory, however many there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple, TypeVar

import numpy as np

from orchestrator.prediction.documents import (
    ClassShare,
    Prediction,
    Predictions,
    Question,
    Unreadable,
)
from orchestrator.prediction.output import OutputFolder, output_names
from orchestrator.prediction.photos import MASKS, OVERLAYS, Photo
from orchestrator.report.pictures import label_picture, overlay, photo
from training.config import EvaluationConfig
from training.data.photo import decode_photo, remark_darkness
from training.data.source import BadData
from training.predictor import Predictor, at_size, whole_view

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(4, os.cpu_count() or 1)
LONGEST_OVERLAY = 2048  # pixels


class _Decoded(NamedTuple):
    """A photo that is to be predicted. Pixels are RGB, uint8 [H, W, 3]."""

    photo: str
    name: str  # of its pictures
    sha256: str
    pixels: np.ndarray
    view: np.ndarray


class _Labelled(NamedTuple):
    """A photo with the label map of its view, uint8 [h, w]."""

    decoded: _Decoded
    labels: np.ndarray


@dataclass(frozen=True)
class PhotoRun:
    """How the photos of one folder are predicted.

    Attributes:
        predictor: The model on its device.
        question: What is written about it.
        out: Where everything is written, begun with the question.
        dark: Takes the photos of 16 bits that were read nearly black; threads add to it.
    """

    predictor: Predictor
    question: Question
    out: OutputFolder
    dark: list[str] = field(default_factory=list)

    def predict(self, photos: Iterable[Photo], progress: Callable[[int], None]) -> Predictions:
        """Predict photos that are not done yet, and return the predictions of all.

        Args:
            photos: The photos.
            progress: Takes how many are done.

        Raises:
            InputError: The device has not enough memory.
            OSError: A picture cannot be written.
            StoreError: The photos' bucket does not answer.
        """
        photos = list(photos)
        named = list(zip(photos, output_names(photos), strict=True))
        done: list[Prediction] = []
        bad: list[Unreadable] = []
        labelled = self._label(_ahead(self._decode, named))
        for number, row in enumerate(_ahead(self._write, labelled), start=1):
            if isinstance(row, Unreadable):
                bad.append(row)
            else:
                self.out.add(row)
                done.append(row)
            progress(number)
        predictions = Predictions(
            question=self.question,
            photos=tuple(sorted(done, key=lambda row: row.photo)),
            unreadable=tuple(sorted(bad, key=lambda row: row.photo)),
        )
        self.out.finish(predictions)
        return predictions

    def _decode(self, named: tuple[Photo, str]) -> _Decoded | Prediction | Unreadable:
        """Read a photo, unless it is done or cannot be read."""
        photo, name = named
        try:
            data = photo.read()
            digest = sha256(data).hexdigest()
            done = self.out.find_done(photo.name, digest, _mask(name))
            if done:
                return done
            pixels = decode_photo(data)
            if remark_darkness(data, pixels):
                self.dark.append(photo.name)
            config = EvaluationConfig(short_side=self.question.short_side, crop=None)
            return _Decoded(photo.name, name, digest, pixels, whole_view(pixels, config))
        except BadData as error:
            return Unreadable(photo=photo.name, problem=str(error))

    def _label(
        self, items: Iterable[_Decoded | Prediction | Unreadable]
    ) -> Iterator[_Labelled | Prediction | Unreadable]:
        """Predict consecutive views of one size together; what needs no prediction passes."""
        pending: list[_Decoded] = []
        for item in items:
            if not isinstance(item, _Decoded):
                yield item
                continue
            if pending and pending[0].view.shape != item.view.shape:
                yield from self._label_together(pending)
                pending = []
            pending.append(item)
            if len(pending) == self.predictor.capacity(item.view):
                yield from self._label_together(pending)
                pending = []
        if pending:
            yield from self._label_together(pending)

    def _label_together(self, pending: list[_Decoded]) -> Iterator[_Labelled]:
        labels = self.predictor([item.view for item in pending])
        yield from map(_Labelled, pending, labels)

    def _write(self, item: _Labelled | Prediction | Unreadable) -> Prediction | Unreadable:
        """Write the pictures of a photo, and return what is on it."""
        if not isinstance(item, _Labelled):
            return item
        decoded = item.decoded
        height, width = decoded.pixels.shape[:2]
        labels = at_size(item.labels, height, width)
        shown = photo(overlay(decoded.pixels, labels, LONGEST_OVERLAY))
        suffix = "png" if shown.startswith(b"\x89PNG") else "jpg"
        row = Prediction(
            photo=decoded.photo,
            sha256=decoded.sha256,
            width=width,
            height=height,
            mask=_mask(decoded.name),
            overlay=f"{OVERLAYS}/{decoded.name}.{suffix}",
            classes=_shares(labels, self.question.class_names),
        )
        self.out.write_picture(row.mask, label_picture(labels))
        self.out.write_picture(row.overlay, shown)
        return row


def _mask(name: str) -> str:
    return f"{MASKS}/{name}.png"


def _shares(labels: np.ndarray, names: dict[int, str]) -> tuple[ClassShare, ...]:
    """Return how much of a label map each class is, the largest first."""
    counts = np.bincount(labels.ravel(), minlength=256)
    shown = sorted(np.flatnonzero(counts).tolist(), key=lambda id: -counts[id])
    return tuple(
        ClassShare(id=id, name=names[id], pixels=int(counts[id]), share=counts[id] / labels.size)
        for id in shown
    )


def _ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function(item)` in order, computed on threads a few items ahead."""
    with ThreadPoolExecutor(THREADS) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
