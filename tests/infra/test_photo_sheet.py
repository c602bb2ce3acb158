"""The sheet of docs/photos.md shows no photo and no mask unless asked to."""

import numpy as np

from infra.docs.photos import GAP, HEADING, TILE, compose, sheet
from orchestrator.report.pictures import Picture, WeakView, palette

CAT, COW = 8, 10


def flat(label: int) -> np.ndarray:
    return np.full((16, 16), label, np.uint8)


def test_a_sheet_has_a_column_for_each_step_and_its_targets():
    photo = np.full((16, 16, 3), 77, np.uint8)
    weak = (None, WeakView(localizer=flat(COW), supervision=flat(CAT)))
    picture = Picture("a", photo, flat(0), [flat(CAT), flat(COW)], weak)
    headings, ((*tiles,),) = sheet([picture], photos=False)
    assert headings == ["step 0", "localizer", "pseudo-supervision", "step 1"]
    colours = [tuple(tile[0, 0]) for tile in tiles]
    cat, cow = tuple(palette()[CAT]), tuple(palette()[COW])
    assert colours == [cat, cow, cat, cow]
    longer, ((first, second, *_),) = sheet([picture], photos=True)
    assert longer == ["photo", "truth", *headings]
    assert (first == 77).all()
    assert not second.any()
    page = compose(headings, [tiles])
    assert page.size == (4 * (TILE + GAP), HEADING + TILE + GAP)
    assert page.getpixel((TILE // 2, HEADING + TILE // 2)) == cat
