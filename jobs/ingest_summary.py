"""Print what was found in a dataset that was ingested: its classes, void, and what looks wrong."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from training.data.dataset_summary import DatasetSummary

# A table of more classes than this would hide what else is said.
SHORT = 40


def print_summary(console: Console, summary: DatasetSummary, classes: Sequence[str]) -> None:
    """Print how many images of each split show each class, the share of void, and warnings.

    Args:
        console: To print to.
        summary: Of the dataset.
        classes: Its class names.
    """
    if len(classes) <= SHORT:
        console.print(_class_table(summary, classes))
    for split, found in summary.splits.items():
        parts = [f"{100 * found.void_share:.1f} % of the pixels are void"]
        if found.empty:
            parts.append(f"{found.empty} images show no class")
        missing = [name for name, n in zip(classes, found.images_of, strict=True) if not n]
        if missing:
            parts.append(f"no image shows {_few(missing)}")
        console.print(f"{split}: {', '.join(parts)}")
    for (first, second), count in summary.shared.items():
        console.print(
            f"warning: {count} of {summary.splits[second].images} images in {second} are in "
            f"{first} as well, so a score on {second} says too much: training refuses it unless "
            "--allow-overlap is given"
        )


def _class_table(summary: DatasetSummary, classes: Sequence[str]) -> Table:
    table = Table("id", "class", *(f"images in {split}" for split in summary.splits))
    for number, name in enumerate(classes):
        counts = [found.images_of[number] for found in summary.splits.values()]
        if any(counts):
            table.add_row(str(number + 1), name, *map(str, counts))
    return table


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more classes" if len(names) > 5 else shown
