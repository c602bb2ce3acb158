"""Build the contact sheet of predictions: one light page with a small picture of each photo.

The page needs nothing but itself. Its links open the pictures that lie beside it.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from orchestrator.prediction.documents import Prediction, Predictions
from orchestrator.report.html import render
from orchestrator.report.pictures import SMALL, palette
from training.config import BACKGROUND

LONGEST = 256  # pixels of a small picture
MOST = 400  # photos on a page, which then has a few MB
NAMED = 5  # classes below a picture


@dataclass(frozen=True)
class SheetClass:
    """A line of the legend."""

    name: str
    colour: str  # of CSS
    photos: int  # that show it
    share: float  # of all pixels of all photos


@dataclass(frozen=True)
class Thumbnail:
    """A photo as the page shows it."""

    photo: str
    size: str
    uri: str
    small: bool  # shown enlarged
    overlay: str  # links
    mask: str
    words: str
    classes: tuple[tuple[str, str, str], ...]  # name, colour and share


def build_sheet(title: str, predictions: Predictions, folder: Path) -> str:
    """Return the page; it shows the first `MOST` photos.

    Args:
        title: Its heading.
        predictions: What was predicted.
        folder: Where the pictures lie.
    """
    question = predictions.question
    names = question.class_names
    photos = predictions.photos
    return render(
        "contact_sheet.html.j2",
        title=title,
        question=question,
        count=len(photos),
        thumbnails=[_thumbnail(each, folder) for each in photos[:MOST]],
        unreadable=predictions.unreadable,
        legend=_legend(photos, names),
    )


def _thumbnail(prediction: Prediction, folder: Path) -> Thumbnail:
    """Return a small picture of an overlay, with what it shows."""
    shown = [each for each in prediction.classes if each.id != BACKGROUND][:NAMED]
    classes = tuple((each.name, _colour(each.id), _percent(each.share)) for each in shown)
    return Thumbnail(
        photo=prediction.photo,
        size=f"{prediction.width} × {prediction.height}",
        uri=_small(folder / prediction.overlay),
        small=max(prediction.width, prediction.height) <= SMALL,
        overlay=quote(prediction.overlay),
        mask=quote(prediction.mask),
        words=", ".join(f"{name} {share}" for name, _, share in classes) or "background only",
        classes=classes,
    )


def _small(path: Path) -> str:
    """Return a picture's file, shrunk, as a data URI."""
    out = BytesIO()
    with Image.open(path) as picture:
        if max(picture.size) <= SMALL:
            # Blurred by JPEG, and hardly larger as it is.
            kind = "png"
            picture.save(out, "PNG", optimize=True)
        else:
            kind = "jpeg"
            picture.draft("RGB", (LONGEST, LONGEST))
            small = picture.convert("RGB")
            small.thumbnail((LONGEST, LONGEST))
            small.save(out, "JPEG", quality=78, optimize=True)
    return f"data:image/{kind};base64,{b64encode(out.getvalue()).decode()}"


def _legend(photos: Sequence[Prediction], names: Mapping[int, str]) -> list[SheetClass]:
    """Return the classes that occur, by id, and how much of the photos they are."""
    pixels: Counter[int] = Counter()
    shows: Counter[int] = Counter()
    for photo in photos:
        for each in photo.classes:
            pixels[each.id] += each.pixels
            shows[each.id] += 1
    return [
        SheetClass(names[id], _colour(id), shows[id], pixels[id] / pixels.total())
        for id in sorted(shows)
    ]


def _colour(id: int) -> str:
    return "#" + bytes(palette()[id]).hex()


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"
