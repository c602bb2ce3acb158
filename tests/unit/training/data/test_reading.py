import pytest

from orchestrator.report.pictures import palette
from orchestrator.store.canonical import canonical_json
from training.data.reading import AS_STORED, BY_VALUE, Reading, voc_colour, voc_palette


@pytest.mark.parametrize(
    ("id", "colour"),
    [(0, (0, 0, 0)), (1, (128, 0, 0)), (15, (192, 128, 128)), (20, (0, 64, 128))],
)
def test_vocs_colours_are_those_of_its_development_kit(id: int, colour: tuple[int, int, int]):
    assert voc_colour(id) == colour


def test_pages_show_classes_in_the_colours_that_masks_are_read_by():
    assert [tuple(colour) for colour in palette()[:255].tolist()] == [
        voc_colour(id) for id in range(255)
    ]
    assert voc_colour(255) == (224, 224, 192)


def test_the_reading_of_before_is_absent_from_json_and_others_read_back():
    assert canonical_json(AS_STORED) == b"{}"
    for reading in (BY_VALUE, voc_palette(2), Reading(turned=True)):
        assert Reading.model_validate_json(canonical_json(reading)) == reading
