from training.data.dataset_summary import SplitSummary, summarise
from training.data.index_row import IndexRow


def row(id: str, **pixels: int) -> IndexRow:
    """Return a row of 10 x 10 pixels with so many pixels of each value."""
    return IndexRow(
        id=id,
        row=0,
        width=10,
        height=10,
        values=tuple(int(name[1:]) for name in pixels),
        pixels=tuple(pixels.values()),
        image_offset=0,
        image_bytes=0,
        mask_offset=0,
        mask_bytes=0,
        row_sha256=id,
    )


def test_classes_void_and_common_images_are_counted():
    rows = {
        "train": [row("a", v0=50, v1=30, v3=20), row("b", v1=50), row("c", v0=100)],
        "val": [row("b", v1=50), row("d", v3=100)],
        "test": [row("e", v0=100)],
    }
    summary = summarise(rows, 3)
    assert summary.splits["train"] == SplitSummary(3, (2, 0, 1), 1, 1 - 250 / 300)
    assert summary.splits["val"] == SplitSummary(2, (1, 0, 1), 0, 0.25)
    assert summary.shared == {("train", "val"): 1}
