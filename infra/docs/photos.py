"""Draw what each step of a chain made of photos: `python -m infra.docs.photos CHAIN`.

A row is one photo of the split that the chain was scored on: for each step its prediction and,
where it learned from image labels by WILSON, its localizer and its pseudo-supervision. --photos
adds the photos and their true masks, which not every dataset allows to pass on. docs/photos.md
shows a sheet without them.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tyro
from PIL import Image, ImageDraw

from orchestrator.report.pictures import Picture, palette
from orchestrator.report.predictions import published_pictures
from stepchain import find_chain, open_store

TILE = 128  # pixels
GAP = 4
HEADING = 16


def main() -> None:
    """Run the command line."""
    tyro.cli(draw)


def draw(
    chain: tyro.conf.Positional[str],
    store: str = "stepchain-store",
    out: Path = Path("photos.png"),
    photos: bool = False,
) -> None:
    """Draw the sheet of a published chain.

    Args:
        chain: Its name.
        store: Folder or s3://bucket/prefix.
        out: The picture to write.
        photos: Show the photos and their true classes, too.
    """
    opened = open_store(store)
    pictures = published_pictures(opened, [find_chain(opened, chain).result])
    headings, rows = sheet(pictures, photos)
    compose(headings, rows).quantize(64).save(out, optimize=True)
    print(f"{out}: {len(rows)} photos; {', '.join(picture.id for picture in pictures)}")


def sheet(pictures: Sequence[Picture], photos: bool) -> tuple[list[str], list[list[np.ndarray]]]:
    """Return the headings of the columns, and for each picture its tiles, uint8 [H, W, 3]."""
    headings = ["photo", "truth"] if photos else []
    for step, view in enumerate(pictures[0].weak):
        headings += ["localizer", "pseudo-supervision"] if view else []
        headings.append(f"step {step}")
    rows = []
    for picture in pictures:
        tiles = [picture.pixels, palette()[picture.truth]] if photos else []
        for prediction, view in zip(picture.predictions, picture.weak, strict=True):
            tiles += [palette()[labels] for labels in view or ()]
            tiles.append(palette()[prediction])
        rows.append(tiles)
    return headings, rows


def compose(headings: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Lay tiles out as a table on white, below the headings of the columns."""
    side = TILE + GAP
    page = Image.new("RGB", (len(headings) * side, HEADING + len(rows) * side), "white")
    pen = ImageDraw.Draw(page)
    for column, heading in enumerate(headings):
        pen.text((column * side, 2), heading, fill="black")
    for line, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            fitted = cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_NEAREST_EXACT)
            page.paste(Image.fromarray(fitted), (column * side, HEADING + line * side))
    return page


if __name__ == "__main__":
    main()
