"""The papers' numbers, as data, each with the convention it was measured by: see paper_numbers.csv.

A campaign ties its variants to them with `Expected`: what their documents say, and what the paper calls that. A number is
shown beside ours only where dataset, classes and setting are the paper's; a difference only where the convention is, too.
The numbers of Figure 4 were read off the figure, to about 0.1. Of convention `unknown` are those that the source copied from
papers without saying how. WILSON prints PLOP's 15-5 as PLOP counts, and its 10-10 as WILSON does: only so they add up.
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

CLASSES = {"voc": VOC_CLASSES}  # of each dataset in the papers' order
IMAGES = {"voc": 1449}  # in the split that the papers score on


class PaperNumber(NamedTuple):
    """One variant as a paper reports it: mIoU as fractions, None where the paper does not print it."""

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


@dataclass(frozen=True)
class Expected:
    """What a paper says of a campaign's chains: those whose documents hold these values, by dotted field.

    Expected("WILSON Figure 4", "WILSON alpha=0.5", {"method.alpha": 0.5}). Setting and task are the chain's own. Raises
    InputError for a source or variant that paper_numbers.csv does not have.
    """

    source: str
    variant: str
    where: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        variants = [row.variant for row in paper_numbers() if row.source == self.source]
        if self.variant not in variants:
            has = (
                f"it has {', '.join(dict.fromkeys(variants))}"
                if variants
                else f"there are {', '.join(_sources())}"
            )
            raise InputError(f"no number of {self.variant!r} in {self.source!r} is known: {has}")

    def fits(self, chain: Chain) -> bool:
        """Whether it speaks of this chain. A field that the chain's documents lack fits nothing."""
        return all(_value(chain, name) == value for name, value in self.where.items())


@cache
def paper_numbers() -> tuple[PaperNumber, ...]:
    """All numbers that are known."""
    with Path(__file__).with_name("paper_numbers.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_parsed(row) for row in csv.DictReader(file))


def find_paper_number(
    chain: Chain, expected: Sequence[Expected], convention: str
) -> PaperNumber | None:
    """What a paper reports of this chain; of several, the first counted by `convention`, else the first of all.

    None where nothing is expected of the chain, or its scenario is not the paper's.
    """
    wanted = [(each.source, each.variant) for each in expected if each.fits(chain)]
    rows = [
        row
        for row in paper_numbers()
        if (row.source, row.variant) in wanted and _same_scenario(row, chain)
    ]
    rows.sort(
        key=lambda row: (row.convention != convention, wanted.index((row.source, row.variant)))
    )
    return rows[0] if rows else None


def _same_scenario(row: PaperNumber, chain: Chain) -> bool:
    """Whether the chain learns the paper's classes in its order, from the labels it had."""
    scenario = chain.scenario
    supervision = (
        f"{scenario.supervision}, all classes"
        if scenario.labels == "seen"
        else scenario.supervision
    )
    return (
        (row.dataset, row.setting, row.supervision)
        == (scenario.dataset, scenario.setting, supervision)
        and scenario.groups == split_groups(row.task, CLASSES[row.dataset])
        and (scenario.image_share, scenario.memory) == (1, 0)
    )


def _value(chain: Chain, name: str) -> Any:
    """The value of a dotted field; `...`, which no document holds, where there is no such field."""
    value: Any = chain
    for part in name.split("."):
        value = getattr(value, part, ...)
    return value


def _sources() -> list[str]:
    return list(dict.fromkeys(row.source for row in paper_numbers()))


def _parsed(row: dict[str, Any]) -> PaperNumber:
    numbers = {
        name: float(row[name]) / 100 if row[name] else None for name in ("old", "new", "all")
    }
    return PaperNumber(**{**row, **numbers})
