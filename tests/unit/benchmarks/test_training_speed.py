"""The table of training speeds holds ratios of the two checkouts' times."""

from benchmarks.training_speed import PRECISIONS, TRANSCRIPTION, images_row, lower_third, table_row


def test_a_third_of_the_rounds_counts() -> None:
    assert lower_third([9, 1, 2, 8, 7, 3, 6, 5, 4]) == 3
    assert lower_third([2]) == 2


def test_a_row_tells_how_many_times_faster_an_iteration_is() -> None:
    row = table_row("digits MiB", {"before": 60.0, "float32": 40.0, "bfloat16": 30.0}, PRECISIONS)
    assert row == "| digits MiB | 60 | 40 (1.50 x) | 30 (2.00 x) |"


def test_images_per_second_stand_beside_those_of_the_transcription() -> None:
    found = {"before": 900.0, TRANSCRIPTION: 1600.0, "float32": 800.0, "bfloat16": 400.0}
    row = images_row("VOC step 0", 16, found, PRECISIONS)
    assert row == "| VOC step 0 | 10.0 | 20.0 (2.00 x) | 40.0 (4.00 x) |"
