"""Keep the folder that predictions are written to, so that a repeated command goes on with it.

The folder holds

    masks/...            a palette PNG of each photo's size, whose values are class ids
    overlays/...         each photo with its mask laid over, at most 2048 pixels long
    predictions.json     `Predictions`
    predictions.csv      a row for each photo: its size and the share of each class
    index.html           the contact sheet
    progress.jsonl       the question, then a line for each photo that is done

A line is added after the files that it names. What an interruption left half written has no line,
and is written again.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from orchestrator.prediction.documents import Prediction, Predictions, Question
from orchestrator.prediction.photos import MASKS, OVERLAYS, PROGRESS, Photo
from training.config import InputError
from training.data.file_index import is_litter

SHEET = "index.html"
JSON = "predictions.json"
CSV = "predictions.csv"


class OutputFolder:
    """A folder with the predictions of one question."""

    def __init__(self, root: Path) -> None:
        """Use a folder that is there and can be written to.

        Raises:
            InputError: It holds something else than predictions.
        """
        _check_kinds(root)
        self.root = root
        self._done: dict[str, Prediction] = {}
        held = sorted(path.name for path in root.iterdir() if not is_litter(path.name))
        if held and PROGRESS not in held:
            more = " ..." if len(held) > 3 else ""
            raise InputError(
                f"{root} holds other files ({', '.join(held[:3])}{more}): "
                "give --out a new folder, or an empty one"
            )

    def begin(self, question: Question) -> int:
        """Take up the predictions of a question, or start them; return how many photos are done.

        Raises:
            InputError: The folder holds the answers to another one.
        """
        path = self.root / PROGRESS
        lines = []
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines or (len(lines) == 1 and not lines[0].endswith("}")):
            self._write(PROGRESS, f"{question.model_dump_json()}\n".encode())
            return 0
        try:
            before = Question.model_validate_json(lines[0])
        except ValidationError as error:
            raise InputError(
                f"{path} is not what a prediction writes: give --out a new folder"
            ) from error
        if before != question:
            raise InputError(
                f"{self.root} holds predictions of another kind ({question.differences(before)}): "
                "give --out a new folder, or delete that one"
            )
        for line in lines[1:]:
            # An interruption may have cut a line. Its photo is predicted again.
            with suppress(ValidationError):
                done = Prediction.model_validate_json(line)
                self._done[done.photo] = done
        return len(self._done)

    def find_done(self, photo: str, sha256: str, mask: str) -> Prediction | None:
        """Return what was predicted of this very photo, if its files are still there."""
        done = self._done.get(photo)
        if done is None or (done.sha256, done.mask) != (sha256, mask):
            return None
        there = all((self.root / name).is_file() for name in (done.mask, done.overlay))
        return done if there else None

    def write_picture(self, name: str, data: bytes) -> None:
        """Write a mask or an overlay. Several threads may."""
        self._write(name, data)

    def add(self, prediction: Prediction) -> None:
        """Note that a photo is done: its pictures are written."""
        if self._done.get(prediction.photo) == prediction:
            return
        self._done[prediction.photo] = prediction
        with (self.root / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(f"{prediction.model_dump_json()}\n")

    def finish(self, predictions: Predictions) -> None:
        """Write the tables."""
        self._write(JSON, predictions.model_dump_json(indent=1).encode())
        # A byte order mark, without which spreadsheets misread names that are not ASCII.
        self._write(CSV, to_csv(predictions).encode("utf-8-sig"))

    def write_sheet(self, page: str) -> Path:
        """Write the contact sheet, and return its path."""
        self._write(SHEET, page.encode())
        return self.root / SHEET

    def _write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_kinds(root: Path) -> None:
    """Raise InputError if a folder is where a file is to be written, or the other way round."""
    for name in (PROGRESS, JSON, CSV, SHEET):
        if (root / name).is_dir():
            raise InputError(
                f"{root / name} is a folder, and predictions are written to a file of this name: "
                "give --out a new folder"
            )
    for name in (MASKS, OVERLAYS):
        if (root / name).is_file():
            raise InputError(
                f"{root / name} is a file, and predictions are written to a folder of this name: "
                "give --out a new folder"
            )


def output_names(photos: Sequence[Photo]) -> list[str]:
    """Return the name of each photo's mask and overlay, without suffix.

    It is the photo's own, with its suffix only where `a.jpg` and `a.png` would share a mask, or
    where `a.jpg.png` would take the name of `a.jpg`. File systems that do not distinguish upper and
    lower case count.
    """
    stems = [str(PurePosixPath(photo.name).with_suffix("")) for photo in photos]
    taken = Counter(stem.casefold() for stem in stems)
    taken.update(photo.name.casefold() for photo in photos)
    return [
        stem if taken[stem.casefold()] == 1 else photo.name
        for photo, stem in zip(photos, stems, strict=True)
    ]


def to_csv(predictions: Predictions) -> str:
    """Return a row for each photo: name, size, the share of each class, and what is wrong."""
    names = predictions.question.class_names
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["photo", "width", "height", "problem", *names.values()])
    rows: dict[str, list[str | int]] = {}
    for done in predictions.photos:
        shares = {each.id: f"{each.share:.6f}" for each in done.classes}
        columns = [shares.get(class_id, "0") for class_id in names]
        rows[done.photo] = [done.width, done.height, "", *columns]
    for bad in predictions.unreadable:
        rows[bad.photo] = ["", "", bad.problem, *[""] * len(names)]
    table.writerows([photo, *rows[photo]] for photo in sorted(rows))
    return out.getvalue()
