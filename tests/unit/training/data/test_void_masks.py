"""Masks of 0 and 255 beside others are asked about, and void around objects is not."""

import pytest

from training.data.index_row import IndexRow
from training.data.reading import BY_VALUE, NOTHING_ASKED, Asked, Reading
from training.data.source import BadData
from training.data.void_masks import check_void


def row(id: str, values: tuple[int, ...], void: int = 0) -> IndexRow:
    """Return the entry of an image with 10 pixels of each value, and some of void."""
    return IndexRow(
        id=id,
        row=0,
        width=10 * len(values) + void,
        height=1,
        values=values,
        pixels=(10,) * len(values),
        image_offset=0,
        image_bytes=0,
        mask_offset=0,
        mask_bytes=0,
        row_sha256="",
    )


def rows(count: int, values: tuple[int, ...], void: int = 0) -> list[IndexRow]:
    return [row(f"{values}{void} {number}", values, void) for number in range(count)]


def values(*pairs: tuple[int, int]) -> Asked:
    return Asked(masks=Reading(masks="values", values=pairs))


def test_masks_of_zero_and_255_beside_masks_of_classes_are_asked_about():
    mixed = [*rows(3, (0, 1)), *rows(3, (0,), void=5)]
    message = (
        r"3 of 6 masks hold only 0 and 255 \(\(0,\)5 0, .*--values 255=NAME.*--palette indices"
    )
    with pytest.raises(BadData, match=message):
        check_void(mixed, NOTHING_ASKED, masks_are_files=True)
    with pytest.raises(BadData, match="255=void among --values"):
        check_void(mixed, values((127, 1)), masks_are_files=True)
    for asked in (Asked(masks=BY_VALUE), values((1, 1), (255, 255))):
        assert check_void(mixed, asked, masks_are_files=True) == []
    assert check_void(mixed, NOTHING_ASKED, masks_are_files=False) == []


def test_void_around_objects_is_void_and_images_without_objects_are_told():
    vocs = rows(20, (0, 8), void=3)
    assert check_void([*vocs, *rows(5, (0,))], NOTHING_ASKED, masks_are_files=True) == []
    one = [*vocs, *rows(1, (0,), void=3)]
    assert check_void(one, NOTHING_ASKED, masks_are_files=True) == []
    (said,) = check_void([*vocs, *rows(5, (0,), void=3)], NOTHING_ASKED, masks_are_files=True)
    assert said.startswith("5 of 25 masks hold only 0 and 255")
    assert said.endswith("if 255 is a class there, say so with --values 255=NAME")


def test_that_255_stays_void_is_said_where_other_values_are_named():
    (said,) = check_void(rows(4, (0, 1), void=3), values((127, 1)), masks_are_files=True)
    assert said.startswith("255 stays void, as --values does not name it (the first mask")
    assert check_void(rows(4, (0, 1)), values((127, 1)), masks_are_files=True) == []
