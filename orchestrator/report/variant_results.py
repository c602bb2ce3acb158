"""Hold the numbers of a variant: the scores of its published chains and their means over seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from orchestrator.planning.paper_numbers import PaperNumber
from orchestrator.planning.variants import Variant
from orchestrator.records.results import ChainResult
from orchestrator.report.chain_tables import PRINTED, headline_fields
from orchestrator.report.statistics import Summary, summarize
from orchestrator.report.table import Value, average
from training.continual_metrics import Continual
from training.metrics import Convention, Scores
from training.prediction_breakdown import PredictionBreakdown
from training.scenario import Scenario


class Means(NamedTuple):
    """mIoU after the last step as papers print it, None where it does not exist."""

    old: float | None  # classes of step 0
    new: float | None  # classes of all later steps, or of the only step
    all: float | None  # classes of all steps


class MeansOverSeeds(NamedTuple):
    """Summary statistics of `Means` over seeds, None where no seed has a value."""

    old: Summary | None
    new: Summary | None
    all: Summary | None


MEANS = Means._fields


@dataclass(frozen=True)
class ScoredChain:
    """A published chain with all its numbers under the convention of the campaign's result."""

    chain: ChainResult
    scores: tuple[Scores, ...]  # after each step
    means: Means
    continual: Continual
    breakdown: PredictionBreakdown | None  # of all old classes after the last step


@dataclass(frozen=True)
class VariantResult:
    """A variant with its published chains, one of each seed."""

    variant: Variant
    scenario: Scenario
    scored_on: str  # in words; variants that differ in it do not compare
    seeds: tuple[ScoredChain, ...]
    paper: PaperNumber | None
    # Whether a difference to the paper means anything: counted alike, on as many images.
    comparable: bool
    stopped: int = 0  # chains that a stopping rule did not continue

    @property
    def name(self) -> str:
        """Return the name of the variant."""
        return self.variant.name

    @property
    def axes(self) -> Mapping[str, Any]:
        """Return the values of the fields in which variants differ, by dotted name."""
        return self.variant.axes

    @property
    def steps(self) -> int:
        """Return the number of steps of its published chains."""
        return len(self.seeds[0].scores) if self.seeds else 0

    @property
    def means(self) -> MeansOverSeeds:
        """Return the summary statistics of old, new and all over the published seeds."""
        return MeansOverSeeds(
            old=summarize(seed.means.old for seed in self.seeds),
            new=summarize(seed.means.new for seed in self.seeds),
            all=summarize(seed.means.all for seed in self.seeds),
        )

    @property
    def breakdown(self) -> PredictionBreakdown | None:
        """Return the mean prediction breakdown of old classes, None when nothing is old."""
        known = [seed.breakdown for seed in self.seeds if seed.breakdown]
        if not known:
            return None
        shares = {}
        for field in PredictionBreakdown.model_fields:
            shares[field] = fmean(getattr(each, field) for each in known)
        return PredictionBreakdown(**shares)

    def difference(self, mean: str) -> float | None:
        """Return our old, new or all minus the paper's, where both exist and compare."""
        ours: Summary | None = getattr(self.means, mean)
        paper: float | None = getattr(self.paper, mean, None)
        if ours is None or paper is None or not self.comparable:
            return None
        return ours.mean - paper

    def average(self, number: Callable[[ScoredChain], float | None]) -> Value:
        """Return the mean of a number over the published seeds, with its deviation."""
        return average(map(number, self.seeds))

    def average_score(self, step: int, field: str) -> Value:
        """Return the mean of a field of Scores after a step."""
        return self.average(lambda seed: getattr(seed.scores[step], field))

    def average_continual(self, field: str) -> Value:
        """Return the mean of a field of Continual."""
        return self.average(lambda seed: getattr(seed.continual, field))

    def average_share(self, field: str) -> Value:
        """Return the mean of a field of PredictionBreakdown."""
        return self.average(lambda seed: getattr(seed.breakdown, field, None))


def printed_means(scores: Scores, groups: int, convention: Convention) -> Means:
    """Return old, new and all of a step as papers print them after several steps.

    Args:
        scores: The scores of the step.
        groups: Number of class groups learned so far.
        convention: What to count.
    """
    old, new, both = headline_fields(convention)
    if groups == 1:
        return Means(None, getattr(scores, new), getattr(scores, both))
    return Means(
        getattr(scores, PRINTED[old]), getattr(scores, PRINTED[new]), getattr(scores, both)
    )
