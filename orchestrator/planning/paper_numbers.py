"""Find the numbers that papers report, each with the convention by which it was measured.

The numbers are in paper_numbers.csv. A campaign ties its variants to them with `Expected`. A
number is shown beside ours only if dataset, classes and setting are the paper's. A difference is
shown only if the convention is the paper's, too, and ours is no reconstruction of what the paper
leaves open.

The numbers of Figure 4 were read off the figure, to about 0.1. WILSON copied numbers from other
papers without naming their convention. Arithmetic derives it: where
(old (n_old + 1) + new n_new) / (n + 1) is the printed `all`, background is in `old` and `all`, as
PLOP counts. It is `unknown` where the printed numbers add up in no way, or in several. SSUL's
README has it, too, because its code chose checkpoints by the scores that it then reports.

Numbers on ADE20K are means over two orders of the classes, so ours of one order is near them at
best. In scenarios with more than one later step they print no mean of all later classes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orchestrator.planning.chain import Chain
from training.config import InputError
from training.data.voc import VOC_CLASSES
from training.scenario import split_groups

IMAGES = {"voc": 1449, "ade": 2000, "coco_voc": 5000}  # in the split that the papers score on


class PaperNumber(NamedTuple):
    """One variant as a paper reports it. The mIoU are fractions, None if they are not printed."""

    source: str  # WILSON Table 4
    dataset: str
    task: str  # 15-5
    setting: str
    variant: str  # as the source calls it
    supervision: Literal["pixel", "image", "image, all classes"]
    old: float | None
    new: float | None
    all: float | None
    convention: Literal["wilson", "mib", "plop", "unknown"]
    reconstruction: bool = False  # whether ours is one, so that a difference would say nothing


@dataclass(frozen=True)
class Expected:
    """The numbers that a paper reports for chains whose documents hold these values.

        Expected("WILSON Figure 4", "WILSON alpha=0.5", {"method.alpha": 0.5})

    Setting and task are the chain's own. Raise InputError for a source or variant that
    paper_numbers.csv does not have.
    """

    source: str
    variant: str
    where: Mapping[str, Any] = field(default_factory=dict)
    # Whether ours is a reconstruction: neither paper nor code says how it was made.
    reconstruction: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.where, Mapping):
            raise InputError(
                f"the third argument of Expected holds values by field, {{'seed': 1}}, "
                f"not {self.where!r:.80}"
            )
        variants = [row.variant for row in paper_numbers() if row.source == self.source]
        if self.variant not in variants:
            advice = f"there are {', '.join(_sources())}"
            if variants:
                advice = f"it has {', '.join(dict.fromkeys(variants))}"
            raise InputError(f"no number of {self.variant!r} in {self.source!r} is known: {advice}")

    def fits(self, chain: Chain) -> bool:
        """Return whether the chain's documents hold the values. A missing field does not fit."""
        return all(_value(chain, name) == value for name, value in self.where.items())


@cache
def paper_numbers() -> tuple[PaperNumber, ...]:
    """Return all known numbers."""
    with Path(__file__).with_name("paper_numbers.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_parsed(row) for row in csv.DictReader(file))


def find_paper_number(
    chain: Chain, expected: Sequence[Expected], convention: str
) -> PaperNumber | None:
    """Return what a paper reports of this chain.

    Of several numbers, return the first that was counted by `convention`, else the first of all.
    Return None if nothing is expected of the chain, or its scenario is not the paper's.
    """
    fitting = [each for each in expected if each.fits(chain)]
    wanted = [(each.source, each.variant) for each in fitting]
    rows = [
        row
        for row in paper_numbers()
        if (row.source, row.variant) in wanted and _same_scenario(row, chain)
    ]
    rows.sort(
        key=lambda row: (row.convention != convention, wanted.index((row.source, row.variant)))
    )
    if not rows:
        return None
    best = fitting[wanted.index((rows[0].source, rows[0].variant))]
    return rows[0]._replace(reconstruction=best.reconstruction)


def _same_scenario(row: PaperNumber, chain: Chain) -> bool:
    """Return whether the chain learns the paper's classes in its order, from the same labels."""
    scenario = chain.scenario
    supervision: str = scenario.supervision
    if scenario.labels == "seen":
        supervision = f"{supervision}, all classes"
    setting = "listed" if scenario.selections else scenario.setting
    own = (scenario.dataset, setting, supervision)
    return (
        (row.dataset, row.setting, row.supervision) == own
        and scenario.groups == split_groups(row.task, _classes(row.dataset))
        and (scenario.image_share, scenario.memory) == (1, 0)
        and (scenario.base_supervision, scenario.background) == ("pixel", "class")
    )


def _classes(dataset: str) -> Sequence[str]:
    """Return a dataset's classes in the papers' order."""
    if dataset == "voc":
        return VOC_CLASSES
    # These modules import OpenCV, without which plans on VOC are made.
    if dataset == "ade":
        from training.data.ade import ADE_CLASSES

        return ADE_CLASSES
    from training.data.coco import COCO_CATEGORIES

    return tuple(COCO_CATEGORIES.values())


def _value(chain: Chain, name: str) -> Any:
    """Return the value of a dotted field, or `...`, which no document holds, if there is none."""
    value: Any = chain
    for word in name.split("."):
        value = getattr(value, word, ...)
    return value


def _sources() -> list[str]:
    return list(dict.fromkeys(row.source for row in paper_numbers()))


def _parsed(row: dict[str, Any]) -> PaperNumber:
    numbers = {
        name: float(row[name]) / 100 if row[name] else None for name in ("old", "new", "all")
    }
    return PaperNumber(**{**row, **numbers})
