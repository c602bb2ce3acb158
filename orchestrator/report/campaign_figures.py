"""Draw the figures of a campaign's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.planning.variants import axis_text, axis_words
from orchestrator.report import comparison_figures, figures
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.chain_figures import BREAKDOWN_CAPTION
from orchestrator.report.chain_tables import BREAKDOWN_TITLE, headline_fields
from orchestrator.report.comparison_figures import Series
from orchestrator.report.html import Drawing, draw
from orchestrator.report.table import Value, fraction, to_value
from orchestrator.report.variant_results import MEANS, VariantResult

MAX_SERIES = 8  # that a figure can distinguish
BAND = "Bands and whiskers are one standard deviation over seeds to each side."


def draw_axes(result: CampaignResult) -> dict[str, Drawing]:
    """Draw a figure for each field in which variants differ.

    A field whose figure would have too many lines to distinguish is left out.
    """
    drawings = {}
    for axis, different in result.axes.items():
        values = sorted(different) if _is_numeric(different) else different
        series = {mean: _series(result, axis, values, mean) for mean in MEANS}
        if len(series["all"]) <= MAX_SERIES:
            drawings[axis] = _draw_axis(axis, values, series)
    return drawings


def _draw_axis(
    axis: str, values: Sequence[Any], panels: Mapping[str, Mapping[str, Series]]
) -> Drawing:
    """Draw the scores along one field, as lines for numbers and as bars for other values."""
    if _is_numeric(values):
        name = axis.rpartition(".")[2]
        figure = comparison_figures.along(name, values, panels)
    else:
        figure = comparison_figures.among([axis_text(value) for value in values], panels)
    caption = (
        f"mIoU after the last step by {axis}: of step 0's classes, of all later ones, "
        f"and of all. {BAND}"
    )
    if _has_paper(panels):
        caption += " Dotted or hollow: what the paper reports, where it counts as we do."
    return draw(figure, f"mIoU by {axis}", caption)


def _is_numeric(values: Sequence[Any]) -> bool:
    """Return whether the values are several numbers."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    return len(values) > 1 and numbers


def _has_paper(panels: Mapping[str, Mapping[str, Series]]) -> bool:
    """Return whether any series has a number of a paper."""
    for lines in panels.values():
        for series in lines.values():
            if any(number is not None for number in series.paper):
                return True
    return False


def _series(
    result: CampaignResult, axis: str, values: Sequence[Any], mean: str
) -> dict[str, Series]:
    """Return the lines along one field, by name.

    A line joins variants that differ in nothing else. It is named by the other fields.

    Args:
        result: The numbers of the campaign.
        axis: The field.
        values: Its values.
        mean: Which mean to show: old, new or all.
    """
    lines: dict[str, dict[Any, VariantResult]] = {}
    for variant in result.variants:
        if axis in variant.axes:
            others = [axis_words(*each) for each in variant.axes.items() if each[0] != axis]
            lines.setdefault(" ".join(others), {})[variant.axes[axis]] = variant
    series = {}
    for name, variants in lines.items():
        ours: list[Value] = []
        paper: list[float | None] = []
        for value in values:
            variant = variants.get(value)
            ours.append(to_value(getattr(variant.means, mean)) if variant else None)
            paper.append(_paper_mean(variant, mean) if variant else None)
        series[name] = Series(ours, paper)
    return series


def _paper_mean(variant: VariantResult, mean: str) -> float | None:
    """Return the paper's number where ours exists and compares with it."""
    compares = variant.difference(mean) is not None
    return getattr(variant.paper, mean) if compares else None


def draw_steps(result: CampaignResult) -> Drawing | None:
    """Draw the means over base, new and all classes after each step.

    Returns:
        The figure, or None where chains have one step or are too many to distinguish.
    """
    variants = [variant for variant in result.variants if variant.seeds]
    if not any(variant.steps > 1 for variant in variants) or len(variants) > 4 * MAX_SERIES:
        return None
    many = len(variants) > MAX_SERIES
    _, _, both = headline_fields(result.convention)
    panels = {
        "base: step 0's classes": _over_steps(variants, "miou_base", not many),
        "new: the step's own classes": _over_steps(variants, "miou_new", not many),
        "all": _over_steps(variants, both, not many),
    }
    band = "Bands of so many would hide each other: the tables have the deviations."
    caption = (
        "mIoU after each step: of the classes of step 0, of those that the step brought, "
        f"and of all so far. {band if many else BAND}"
    )
    label = "mIoU over incremental steps of each variant"
    return draw(comparison_figures.over_steps(panels), label, caption)


def _over_steps(
    variants: Sequence[VariantResult], field: str, deviations: bool
) -> dict[str, list[Value]]:
    """Return a field of Scores after each step, by variant, with or without deviations."""
    lines: dict[str, list[Value]] = {}
    for variant in variants:
        means = [variant.average_score(step, field) for step in range(variant.steps)]
        lines[variant.name] = means if deviations else [fraction(mean) for mean in means]
    return lines


def draw_breakdowns(result: CampaignResult) -> Drawing | None:
    """Draw what the pixels of old classes were predicted as, or None when nothing is old."""
    bars = {variant.name: variant.breakdown for variant in result.variants if variant.breakdown}
    if not bars:
        return None
    caption = f"{BREAKDOWN_TITLE} after the last step, mean over seeds. {BREAKDOWN_CAPTION}"
    label = f"{BREAKDOWN_TITLE} in each variant"
    return draw(figures.breakdowns({"all old classes": bars}), label, caption)
