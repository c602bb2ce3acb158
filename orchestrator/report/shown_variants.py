"""Choose the variants that a page shows: all of them, or the best of very many.

Whatever is left out stays in the folded table of all scores and in the files beside the page.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.table import Table
from orchestrator.report.variant_results import VariantResult

MOST = 40  # variants that a page shows
BEST = 20  # of more than MOST


def with_shown_variants(result: CampaignResult) -> CampaignResult:
    """Return the result with the variants that a page shows, in the campaign's order.

    Of very many these are the best by the mean mIoU of all classes. Variants that were scored on
    different pixels do not compare, so each such group has its own best.
    """
    if len(result.variants) <= MOST:
        return result
    taken: Counter[str] = Counter()
    ranks: dict[str, int] = {}
    for variant in sorted(result.variants, key=_score, reverse=True):
        ranks[variant.name] = taken[variant.scored_on]
        taken[variant.scored_on] += 1
    by_rank = sorted(result.variants, key=lambda variant: ranks[variant.name])
    best = {variant.name for variant in by_rank[:BEST]}
    variants = tuple(variant for variant in result.variants if variant.name in best)
    return replace(result, variants=variants)


def _score(variant: VariantResult) -> float:
    """Return the mean mIoU of all classes, below all others if there is none."""
    return variant.means.all.mean if variant.means.all else -1.0


def keep_variants(table: Table, names: Collection[str]) -> Table:
    """Return a table with the rows of some variants, or the columns where it has them there."""
    if table.corner == "variant":
        return replace(table, rows=tuple(row for row in table.rows if row.name in names))
    kept = [index for index, column in enumerate(table.columns) if column.group in names]
    rows = []
    for row in table.rows:
        best = frozenset(kept.index(index) for index in row.best if index in kept)
        rows.append(row._replace(values=tuple(row.values[index] for index in kept), best=best))
    return replace(table, columns=tuple(table.columns[index] for index in kept), rows=tuple(rows))
