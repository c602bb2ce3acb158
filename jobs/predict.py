"""Predict photos: `python -m jobs.predict STEP --images FOLDER --out FOLDER --store URI`.

STEP is a step's key, the beginning of one, or CHAIN:INDEX with a chain's name, such as
`digits_wilson:1`. The folder gets a palette PNG of each photo's size, overlays, the share of each
class as JSON and CSV, and a contact sheet. After an interruption the same command goes on. A photo
that cannot be read is listed with the reason; the others are predicted, and the exit status is 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from jobs.errors import user_errors
from jobs.options import AtStore
from jobs.places import checked_folder
from training.config import BACKGROUND, InputError

if TYPE_CHECKING:
    import torch

    from orchestrator.prediction.documents import Predictions
    from orchestrator.prediction.output import OutputFolder
    from orchestrator.prediction.photos import Found
    from orchestrator.prediction.published_model import PublishedModel

Side = int | Literal["original"] | None


def predict(
    step: tyro.conf.Positional[str],
    images: str,
    out: Path,
    at: AtStore,
    short_side: Side = None,
    tile: int = 1024,
    device: str = "auto",
) -> None:
    """Predict the class of each pixel of photos with a published step.

    Args:
        step: Key of a step, the beginning of one, or CHAIN:INDEX.
        images: A folder with its subfolders, a file, s3://bucket/folder, or https:// of a file.
        out: Folder for what is predicted; it is made. One that holds predictions of the same step
            is completed.
        short_side: Resize the shorter side of photos to this; by default as the step was scored.
        tile: Pixels of a side of the square that the network sees at once. Smaller photos share it.
            Larger ones are cut into tiles that overlap by three eighths, whose scores are averaged
            with weights that fall towards the tiles' borders.
        device: cpu, cuda, or auto: a GPU where there is one.
    """
    from jobs.console import open_console
    from orchestrator.prediction.output import OutputFolder
    from orchestrator.prediction.photos import find_photos
    from orchestrator.prediction.published_model import find_model

    if tile < 64:
        raise InputError(
            f"--tile {tile} is smaller than what a class can be seen in: give 64 or more"
        )
    console = open_console()
    model = find_model(at.open_existing(), step)
    side = _side(short_side, model)
    found = find_photos(images, besides=out.expanduser())
    folder = OutputFolder(checked_folder(out))
    _announce(found, model, side, console)
    predictions = _predict(model, found, folder, side, tile, device, console)
    page = _write_sheet(step, predictions, folder)
    _report(predictions, page, console)
    if predictions.unreadable:
        raise SystemExit(1)


def _side(wanted: Side, model: "PublishedModel") -> int | None:
    """Return what the shorter side of photos is resized to; None keeps them as they are."""
    if wanted is None:
        return model.view.short_side
    if wanted == "original":
        return None
    if wanted < 1:
        raise InputError(f"--short-side {wanted} leaves no pixel: give 1 or more, or original")
    return wanted


def _predict(
    model: "PublishedModel",
    found: "Found",
    folder: "OutputFolder",
    side: int | None,
    tile: int,
    device: str,
    console: Console,
) -> "Predictions":
    """Predict the photos with a progress bar, and write everything but the contact sheet."""
    from orchestrator.execution.progress_display import show_progress
    from orchestrator.prediction.documents import Question
    from orchestrator.prediction.published_model import fetched
    from orchestrator.prediction.run import PhotoRun
    from training.data.photo import DARK_PHOTOS
    from training.predictor import load_predictor

    record = model.record
    precision = record.step.optimization.precision
    with fetched(model.store, record) as files:
        predictor = load_predictor(files, _device(device), precision, tile)
    question = Question(
        step=record.key,
        attempt=record.attempt,
        class_names=model.class_names,
        short_side=side,
        tile=predictor.tile,
        precision=predictor.trained.precision,
    )
    if done := folder.begin(question):
        console.print(f"going on: {_count(done)} in {folder.root} before")
    run = PhotoRun(predictor, question, folder)
    with show_progress(console, "predicting", len(found.photos)) as update:
        predictions = run.predict(found.photos, update)
    if run.dark:
        names = f"{len(run.dark)}, the first is {min(run.dark)}"
        console.print(f"note: {DARK_PHOTOS}: {names}", markup=False)
    return predictions


def _device(name: str) -> "torch.device":
    """Return the device of that name. Raise InputError if it is not on this machine."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--device {name} is not here ({reason}): give cpu or auto") from error
    return device


def _announce(found: "Found", model: "PublishedModel", side: int | None, console: Console) -> None:
    """Print what is predicted, by what."""
    passed = f", {len(found.others)} other files passed over" if found.others else ""
    console.print(f"{_count(len(found.photos))}{passed}")
    for folder in found.predicted:
        console.print(f"passed over: {folder}, which holds predictions")
    classes = len(model.class_names.keys() - {BACKGROUND})
    console.print(f"step {model.record.key}: {classes} classes, sees photos {_seen(side)}")


def _seen(side: int | None) -> str:
    return f"with their shorter side at {side} pixels" if side else "at their own size"


def _write_sheet(step: str, predictions: "Predictions", folder: "OutputFolder") -> Path:
    """Write the contact sheet and return its path."""
    from orchestrator.prediction.contact_sheet import build_sheet

    return folder.write_sheet(build_sheet(step, predictions, folder.root))


def _report(predictions: "Predictions", page: Path, console: Console) -> None:
    """Print what was not read, and where the results are."""
    for bad in predictions.unreadable:
        console.print(f"unreadable: {bad.photo}: {bad.problem}")
    console.print(f"{_count(len(predictions.photos))} predicted: {page}")


def _count(photos: int) -> str:
    return f"{photos:,} photo{'s' if photos != 1 else ''}"


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(predict, prog="python -m jobs.predict", description=__doc__, args=arguments)


if __name__ == "__main__":
    main()
