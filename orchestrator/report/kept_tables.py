"""Build tables from kept scores: a row for each variant, its seeds averaged."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.report.chain_tables import BREAKDOWN
from orchestrator.report.kept_scores import KeptCampaign, KeptVariant, SeedScores
from orchestrator.report.table import Column, Row, Table, Value, average
from orchestrator.report.variant_results import MEANS
from training.config import InputError

HOUR = 3600


class Wanted(NamedTuple):
    """What a table shows besides the means after the last step."""

    breakdown: bool = False  # what the pixels of old classes were predicted as
    against: str | None = None
    """The variant to take differences from, seed by seed: its name, or one axis of it such as
    `prior=bce`. With an axis, each variant has its own: the one that differs in this axis alone."""


def kept_table(kept: KeptCampaign, wanted: Wanted) -> Table:
    """Return the mean IoU after step 0 and after the last step, and what else is wanted.

    Raise InputError if there is no variant to take differences from.
    """
    seeds = {variant.name: kept.seeds(variant) for variant in kept.variants}
    columns = [Column("", name) for name in ("step 0", *MEANS)]
    if wanted.breakdown:
        columns += [Column("", name) for name in BREAKDOWN.values()]
    if wanted.against:
        columns += [Column("Δ", name) for name in MEANS]
    rows = [
        Row("", _row_name(variant), tuple(_values(variant.name, seeds, wanted)))
        for variant in kept.variants
    ]
    return Table(kept.campaign, _caption(kept, wanted), "variant", tuple(columns), tuple(rows))


def _row_name(variant: KeptVariant) -> str:
    """Return the name of a row. A variant that lacks seeds says so."""
    if len(variant.chains) == len(variant.asked):
        return variant.name
    return f"{variant.name} ({len(variant.chains)} of {len(variant.asked)} seeds)"


def _values(
    name: str, seeds: Mapping[str, Mapping[int, SeedScores]], wanted: Wanted
) -> Iterable[Value]:
    """Yield the values of a variant, column by column."""
    own = seeds[name]
    yield average(each.base for each in own.values())
    for mean in MEANS:
        yield average(getattr(each.means, mean) for each in own.values())
    if wanted.breakdown:
        for field in BREAKDOWN:
            yield average(getattr(each.breakdown, field, None) for each in own.values())
    if wanted.against:
        reference = _reference(name, wanted.against, seeds)
        for mean in MEANS:
            yield _difference(own, seeds[reference], mean) if reference != name else None


def _reference(name: str, against: str, seeds: Mapping[str, object]) -> str:
    """Return the variant that a variant is compared with."""
    if against in seeds:
        return against
    axis = against.partition("=")[0]
    words = [against if word.startswith(f"{axis}=") else word for word in name.split()]
    reference = " ".join(words)
    if against not in words or reference not in seeds:
        raise InputError(
            f"{name!r} cannot be compared with {against!r}, which is neither a variant nor a "
            f"value of one of its axes; the variants are {', '.join(seeds)}"
        )
    return reference


def _difference(
    own: Mapping[int, SeedScores], others: Mapping[int, SeedScores], mean: str
) -> Value:
    """Return the mean and deviation of the differences between chains of the same seed."""
    differences = []
    for seed, scores in own.items():
        mine = getattr(scores.means, mean)
        other = getattr(others[seed].means, mean) if seed in others else None
        differences.append(None if mine is None or other is None else mine - other)
    return average(differences)


def _caption(kept: KeptCampaign, wanted: Wanted) -> str:
    asked = sum(len(variant.asked) for variant in kept.variants)
    hours = sum(step.train_seconds for step in kept.steps) / HOUR
    sentences = [
        f"{kept.published} of {asked} chains; their {len(kept.steps)} different steps trained for "
        f"{hours:.1f} hours."
    ]
    if wanted.against:
        sentences.append(f"Δ: minus {wanted.against} of the same seed.")
    return " ".join(sentences)
