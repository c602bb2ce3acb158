"""Build the page that shows a dataset before anybody trains on it.

Like the other pages it needs nothing but itself.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from orchestrator.report.dataset_findings import findings
from orchestrator.report.dataset_look import LookedAt, decode
from orchestrator.report.html import render
from orchestrator.report.pictures import SMALL, overlay, palette
from training.config import flatten_groups
from training.data.likeness import alike
from training.scenario import Setting, select_images

MANY = 60  # classes
LONGEST = 224  # pixels of a small picture
PAIRS = 12  # that are shown


@dataclass(frozen=True)
class SplitFacts:
    """A line about a split."""

    name: str
    images: int
    looked: int
    void: float
    sizes: str  # the smallest, a middle and the largest photo
    common: str  # the most frequent sizes


@dataclass(frozen=True)
class ClassFacts:
    """A line about a class, and its pictures."""

    id: int
    name: str
    colour: str
    images: tuple[int, ...]  # of each split
    share: float  # of the first split's pixels that are not void
    objects: int  # that were looked at
    typical: str  # side of a typical object, in pixels
    smallest: str  # a tenth of the objects is smaller
    pictures: tuple[tuple[str, str, bool], ...]  # data URI, words, whether it is shown enlarged


@dataclass(frozen=True)
class StepFacts:
    """What a step of a scenario would see of the training split. Shares are of its pixels."""

    number: int
    names: tuple[str, ...]
    images: int
    new: float
    earlier: float
    later: float
    void: float


@dataclass(frozen=True)
class LayerFacts:
    """A companion layer, and pictures of some of its maps."""

    name: str
    maps: int
    images: int  # of the split
    pictures: tuple[tuple[str, str, bool], ...]  # data URI, words, whether it is shown enlarged


@dataclass(frozen=True)
class PairFacts:
    """Two images that look alike."""

    words: str
    correlation: float
    pictures: tuple[str, str]  # data URIs


def build_page(
    name: str,
    classes: Sequence[str],
    looked: Sequence[LookedAt],
    groups: Sequence[Sequence[int]] = (),
    setting: Setting = "overlap",
    layers: Sequence[LayerFacts] = (),
) -> str:
    """Return the page.

    Args:
        name: The dataset's.
        classes: Its class names.
        looked: Its splits, as `look_at` returns them. The first is the one that steps train on.
        groups: Class ids of each step of a scenario, or none.
        setting: Of the scenario.
        layers: The dataset's companion layers.
    """
    train = looked[0]
    pairs = [*_pairs(looked)]
    return render(
        "dataset.html.j2",
        name=name,
        findings=[*_resemblance(pairs, train), *findings(looked, classes)],
        splits=[_split(each) for each in looked],
        classes=[_class(number + 1, name, looked) for number, name in enumerate(classes)],
        steps=[_step(train, groups, number, classes, setting) for number in range(len(groups))],
        setting=setting,
        layers=layers,
        pairs=pairs[:PAIRS],
        pair_count=len(pairs),
        train=train.name,
    )


def _resemblance(pairs: Sequence[PairFacts], train: LookedAt) -> Iterator[str]:
    """Yield how many images look like one of the training split, if any do."""
    if pairs:
        images = "image looks" if len(pairs) == 1 else "images look"
        yield f"{len(pairs)} {images} like one of {train.name}, such as {pairs[0].words}"


def _split(each: LookedAt) -> SplitFacts:
    sizes = each.index.sizes
    by_area = sizes[sizes.prod(1).argsort(kind="stable")]
    middle = by_area[len(by_area) // 2]
    common = Counter(map(tuple, sizes.tolist())).most_common(3)
    return SplitFacts(
        name=each.name,
        images=len(sizes),
        looked=len(each.sample.rows),
        void=each.void_share,
        sizes=" to ".join(_size(size) for size in (by_area[0], by_area[-1]))
        + f", half up to {_size(middle)}",
        common=", ".join(f"{_size(size)} ({count:,})" for size, count in common),
    )


def _class(class_id: int, name: str, looked: Sequence[LookedAt]) -> ClassFacts:
    index = looked[0].index
    pixels = index.pixels.sum(0)
    sides = np.array([side for each in looked for side in each.sample.sides.get(class_id, [])])
    return ClassFacts(
        id=class_id,
        name=name,
        colour="#" + bytes(palette()[class_id]).hex(),
        images=tuple(int(each.index.labels[:, class_id - 1].sum()) for each in looked),
        share=pixels[class_id] / max(1, pixels.sum()),
        objects=len(sides),
        typical=f"{np.median(sides):.0f}" if len(sides) else "–",
        smallest=f"{np.quantile(sides, 0.1):.0f}" if len(sides) else "–",
        pictures=tuple(_pictures(class_id, name, looked[0], index.labels.shape[1])),
    )


def _pictures(
    class_id: int, name: str, each: LookedAt, classes: int
) -> Iterator[tuple[str, str, bool]]:
    """Yield photos that show much, a typical amount and little of a class, masks laid over."""
    rows = np.array(each.sample.rows)
    pixels = each.index.pixels[rows]
    share = pixels[:, class_id] / each.index.sizes[rows].prod(1)
    order = rows[share.argsort(kind="stable")][np.count_nonzero(share == 0) :]
    places = (0.9, 0.5, 0.1) if classes <= MANY else (0.5,)
    chosen = dict.fromkeys(int(order[int(p * len(order))]) for p in places if len(order))
    for row in chosen:
        decoded = decode(each.split, row)
        part = (decoded.labels == class_id).mean()
        words = f"{each.index.ids[row]}: {name} is {part:.1%} of it"
        shown = overlay(decoded.pixels, decoded.labels, LONGEST)
        yield picture_uri(shown), words, max(shown.shape) <= SMALL


def picture_uri(pixels: np.ndarray) -> str:
    """Return a picture as a data URI; JPEG would blur a small one."""
    out = BytesIO()
    kind = "png" if max(pixels.shape[:2]) <= SMALL else "jpeg"
    Image.fromarray(pixels).save(out, kind.upper(), optimize=True, quality=78)
    return f"data:image/{kind};base64,{b64encode(out.getvalue()).decode()}"


def _step(
    train: LookedAt,
    groups: Sequence[Sequence[int]],
    number: int,
    classes: Sequence[str],
    setting: Setting,
) -> StepFacts:
    """Return what a step would see, by the index alone."""
    rows = select_images(train.index.labels, groups, number, setting, train.index.ids)
    pixels = train.index.pixels[rows].sum(0)
    total = max(1, int(train.index.sizes[rows].prod(1).sum()))
    new = [*groups[number]]
    earlier = [*flatten_groups(groups[:number])]
    later = [*{*range(1, len(classes) + 1)}.difference(new, earlier)]
    return StepFacts(
        number=number,
        names=tuple(classes[class_id - 1] for class_id in new),
        images=len(rows),
        new=pixels[new].sum() / total,
        earlier=pixels[earlier].sum() / total,
        later=pixels[later].sum() / total,
        void=1 - pixels.sum() / total,
    )


def _pairs(looked: Sequence[LookedAt]) -> Iterator[PairFacts]:
    """Yield images that look like one of the first split. Only so many pictures are made."""
    first = looked[0]
    made = 0
    for other in looked[1:]:
        for pair in alike(other.sample.fingerprints, first.sample.fingerprints):
            row, near = other.sample.rows[pair.first], first.sample.rows[pair.second]
            pictures = ("", "")
            if made < PAIRS:
                pictures = (_shrunk(first, near), _shrunk(other, row))
                made += 1
            words = f"{first.name}/{first.index.ids[near]} and {other.name}/{other.index.ids[row]}"
            yield PairFacts(words, pair.correlation, pictures)


def _shrunk(each: LookedAt, row: int) -> str:
    """Return a photo of a split as a small picture."""
    pixels = decode(each.split, row).pixels
    return picture_uri(overlay(pixels, np.zeros(pixels.shape[:2], np.uint8), LONGEST))


def _size(size: Sequence[int] | np.ndarray) -> str:
    return f"{size[0]} × {size[1]}"
