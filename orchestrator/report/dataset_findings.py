"""Say what looks wrong in a dataset, in a sentence each. None of it refuses anything."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from operator import itemgetter

import numpy as np

from orchestrator.report.dataset_look import LookedAt
from training.config import BACKGROUND
from training.data.likeness import TURNS
from training.data.reading import voc_colour
from training.data.voc import VOC_CLASSES

FEW = 10  # images of a class that a step learns little from
MUCH_VOID = 0.2  # of the pixels; VOC has 0.05
FULL = 0.95  # of the images
ENOUGH = 20  # masks to judge by how they lie on their photos
BETTER = 1.1  # how much stronger edges must be for a mask that is turned
MOST_OF = 0.65  # of the masks


def findings(looked: Sequence[LookedAt], classes: Sequence[str]) -> list[str]:
    """Return what looks wrong, the worst first.

    Args:
        looked: The splits, as `look_at` returns them.
        classes: The names of the dataset's classes.
    """
    found = [*_shared(looked)]
    for each in looked:
        found += _turned(each)
        found += _palettes(each, classes)
        found += _counts(each, classes)
    return found


def _shared(looked: Sequence[LookedAt]) -> Iterator[str]:
    """Yield what two splits have in common."""
    for first, second in combinations(looked, 2):
        same = set(first.index.row_sha256) & set(second.index.row_sha256)
        if same:
            yield (
                f"{len(same):,} of the {len(second.index.ids):,} images of {second.name} are in "
                f"{first.name} too, byte for byte: a score on {second.name} says too much"
            )
        named = set(first.index.ids) & set(second.index.ids)
        if len(named) > len(same):
            example = min(named)
            yield (
                f"{len(named):,} images of {first.name} and {second.name} have the same id, such "
                f"as {example}"
            )


def _turned(each: LookedAt) -> Iterator[str]:
    """Yield whether masks lie the wrong way on their photos."""
    sample = each.sample
    if sample.not_turned:
        yield (
            f"{len(sample.not_turned):,} of the {len(sample.rows):,} photos of {each.name} that "
            "were looked at have an EXIF orientation and are read as they are stored, such as "
            f"{sample.not_turned[0]}: see whether their masks lie on the objects"
        )
    if len(sample.fits) < ENOUGH:
        return
    names = ["", *TURNS]
    fits = np.array([itemgetter(*names)(fit) for fit in sample.fits])
    means = fits.mean(0)
    best = int(means.argmax())
    better = float((fits[:, best] > fits[:, 0]).mean())
    if best and means[best] > BETTER * means[0] and better > MOST_OF:
        yield (
            f"the masks of {each.name} seem to be turned {names[best]}: so turned, {better:.0%} of "
            f"those that were looked at lie better on the edges of their photos "
            f"({means[best]:.2f} of the mean edge, and {means[0]:.2f} as they are)"
        )


def _palettes(each: LookedAt, classes: Sequence[str]) -> Iterator[str]:
    """Yield whether the masks' palettes contradict VOC's, or one another."""
    colours: dict[int, list[str]] = {}
    for (class_id, colour), _ in each.sample.palettes.most_common():
        colours.setdefault(class_id, []).append(colour)
    for class_id, shown in sorted(colours.items()):
        if len(shown) > 1:
            yield (
                f"masks of {each.name} show the class id {class_id} in {len(shown)} colours (#"
                f"{', #'.join(shown[:3])}): their palettes differ, and so may what the ids mean"
            )
            return
    if tuple(classes) != VOC_CLASSES:
        return
    for class_id, (colour, *_) in sorted(colours.items()):
        expected = bytes(voc_colour(class_id)).hex()
        grey = f"{class_id:02x}" * 3
        if colour not in (expected, grey):
            yield (
                f"the classes are VOC's, and the masks of {each.name} show the class id {class_id} "
                f"as #{colour}, not VOC's #{expected}: their palette is not VOC's"
            )
            return


def _counts(each: LookedAt, classes: Sequence[str]) -> Iterator[str]:
    """Yield what is odd in how often classes and void occur."""
    index = each.index
    images = len(index.ids)
    shown = index.labels.sum(0)
    if never := [name for name, count in zip(classes, shown, strict=True) if not count]:
        yield f"no image of {each.name} shows {_listed(never)}"
    rare = [f"{name} ({n})" for name, n in zip(classes, shown, strict=True) if 0 < n < FEW]
    if rare and images > 2 * FEW:
        yield f"fewer than {FEW} images of {each.name} show {_listed(rare)}"
    if len(classes) > 1:
        full = [name for name, n in zip(classes, shown, strict=True) if n > FULL * images]
        if full:
            yield (
                f"almost every image of {each.name} shows {_listed(full)}: steps without it have "
                "hardly any image in the disjoint setting; is it background?"
            )
    if not index.pixels[:, BACKGROUND].any():
        yield (
            f"no pixel of {each.name} is background (0): scenario.background none trains models "
            "without a channel for it"
        )
    if empty := int((~index.labels.any(1)).sum()):
        yield f"{empty:,} of {images:,} images of {each.name} show no class"
    if each.void_share > MUCH_VOID:
        yield f"{each.void_share:.0%} of the pixels of {each.name} are void (255)"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
